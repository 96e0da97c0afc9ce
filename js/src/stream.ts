/**
 * A stream: a `Reader` that can be waited for. Each one is independent, and starts where it was asked to.
 *
 * `next()` rejects with `Lagged` where messages were missed, and goes on after that: a `for await` ends there, and another
 * one over the same stream continues. It rejects, once, with what closed the bus (`Closed`, `Forbidden`, …); when the
 * stream itself is closed (`close()`, `break`, the signal, `bus.close()`), it just ends.
 */
import { Lagged } from "./errors.js";
import type { Message } from "./frames.js";
import type { Reader } from "./reader.js";
import { onAbort } from "./util.js";

interface Waiter<T> {
  resolve: (result: IteratorResult<T, undefined>) => void;
  reject: (error: unknown) => void;
}

/** Opens a reader; `wake` is called when it may have something, `end` when it never will. The second item lets go of it. */
export type Subscribe = (wake: () => void, end: () => void) => readonly [Reader, () => void];

export class Stream<T> implements AsyncIterableIterator<T, undefined> {
  readonly #reader: Reader;
  readonly #release: () => void;
  readonly #make: (message: Message) => T;
  #forget: () => void = () => undefined;
  #waiters: Waiter<T>[] = [];
  #ended = false;

  /** @internal */
  constructor(subscribe: Subscribe, make: (message: Message) => T, signal?: AbortSignal) {
    this.#make = make;
    [this.#reader, this.#release] = subscribe(
      () => this.#wake(),
      () => this.close(),
    );
    this.#forget = onAbort(signal, () => this.close());
  }

  /** The next value if it is there already. Throws as `next` rejects. */
  tryNext(): T | undefined {
    if (this.#ended) return undefined;
    try {
      const message = this.#reader.read();
      return message && this.#make(message);
    } catch (error) {
      if (!(error instanceof Lagged)) this.close();
      throw error;
    }
  }

  next(): Promise<IteratorResult<T, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#wake();
    });
  }

  /** End the stream. Whoever waits for a value is told that there is none. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#forget();
    this.#release();
    for (const { resolve } of this.#waiters.splice(0)) resolve({ done: true, value: undefined });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #wake(): void {
    while (this.#waiters.length > 0) {
      // The waiter is taken before the read: an error that ends the stream belongs to it.
      const waiter = this.#waiters.shift();
      try {
        const value = this.tryNext();
        if (value !== undefined) waiter?.resolve({ done: false, value });
        else if (this.#ended) waiter?.resolve({ done: true, value: undefined });
        else if (waiter) {
          this.#waiters.unshift(waiter);
          return;
        }
      } catch (error) {
        waiter?.reject(error);
      }
    }
  }
}
