/** Sets of callbacks that cannot break each other. */
import { onAbort } from "../core/abort.js";

/** Calls foreign code. What it throws, or its promise rejects with, is reported on the console and does not reach the caller. */
export function call(code: () => unknown): void {
  const failed = (error: unknown) => console.error("[ebus] a listener failed:", error);
  try {
    const result = code();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}

export class Listeners<Args extends unknown[]> {
  readonly #all = new Map<object, (...args: Args) => void>();

  /**
   * Adds a listener until `signal` aborts.
   *
   * @returns A function that removes the listener.
   */
  add(listener: (...args: Args) => void, signal?: AbortSignal): () => void {
    const key = {};
    if (signal?.aborted) return () => undefined;
    this.#all.set(key, listener);
    const forget = onAbort(signal, () => this.#all.delete(key));
    return () => {
      forget();
      this.#all.delete(key);
    };
  }

  /** Calls all listeners. It iterates over a copy, so that listeners may be added and removed meanwhile. */
  emit(...args: Args): void {
    for (const listener of [...this.#all.values()]) call(() => listener(...args));
  }
}
