/** Lifetimes by `AbortSignal`. */

/**
 * Calls `end` when `signal` aborts, or immediately if it is already aborted.
 *
 * @returns A function that cancels the call.
 */
export function onAbort(signal: AbortSignal | undefined, end: () => void): () => void {
  if (signal?.aborted) end();
  else signal?.addEventListener("abort", end, { once: true });
  return () => signal?.removeEventListener("abort", end);
}
