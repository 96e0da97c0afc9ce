/** Waiting that ends: by a result, a time, or a signal, and leaves nothing behind. */
import { onAbort } from "../core/abort.js";
import type { Request } from "../core/channel.js";
import type { SessionRunner } from "./runner.js";

export interface WaitOptions {
  /** The time to wait, in milliseconds; then the promise rejects with a `TimeoutError`. Default: unlimited. */
  timeout?: number | undefined;
  /** Ends the waiting: the promise rejects with the signal's reason. What is waited for goes on. */
  signal?: AbortSignal | undefined;
}

/**
 * Returns a promise that `start` settles.
 *
 * @param start - Begins to wait. Returns a function that is called when the waiting ends, however it does.
 */
export function waiting<T>(
  { timeout, signal }: WaitOptions,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  const ends: (() => void)[] = [];
  const waited = new Promise<T>((resolve, reject) => {
    ends.push(start(resolve, reject));
    ends.push(onAbort(signal, () => reject(signal?.reason as Error)));
    if (timeout !== undefined) {
      const timer = setTimeout(() => reject(new DOMException("no answer in time", "TimeoutError")), timeout);
      ends.push(() => clearTimeout(timer));
    }
  });
  return waited.finally(() => {
    for (const end of ends) end();
  });
}

/** Returns the answer to the request that `make` makes. A request that nobody waits for any more is forgotten. */
export function answer<T>({ session, flush }: SessionRunner, options: WaitOptions, make: () => Request<T>): Promise<T> {
  return waiting(options, (resolve, reject) => {
    const request = make();
    request.done = (error, value) => (error ? reject(error) : resolve(value as T));
    flush();
    return () => session.cancel(request);
  });
}
