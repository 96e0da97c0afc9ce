/**
 * A stream: a `Reader` with an asynchronous iterator. Streams are independent, and each begins where the caller asked.
 *
 * `next()` rejects with `Lagged` if messages were missed, and continues after them: a `for await` loop ends there, and
 * another loop over the same stream continues. `next()` rejects once with the reason why the bus is closed (`Closed`,
 * `Forbidden`, …). When the stream itself is closed (`close()`, `break`, its signal, `bus.close()`), it ends normally.
 */
import { onAbort } from "../core/abort.js";
import { Closed, Lagged } from "../core/errors.js";
import type { Message } from "../core/frames.js";
import type { Reader } from "../core/reader.js";

interface Waiter<T> {
  resolve: (result: IteratorResult<T, undefined>) => void;
  reject: (error: unknown) => void;
}

/**
 * Opens a reader, or a clone of `original`, and returns it with a function that releases it. `wake` is called when the
 * reader may have something to read, `end` when it never will again.
 */
export type Subscribe = (wake: () => void, end: () => void, original?: Reader) => readonly [Reader, () => void];

export interface WaitOptions {
  /** The time to wait for one value, in milliseconds; then the promise rejects with a `TimeoutError`. Default: unlimited. */
  timeout?: number | undefined;
}

export class Stream<T> implements AsyncIterableIterator<T, undefined> {
  readonly #reader: Reader;
  readonly #release: () => void;
  readonly #make: (message: Message) => T;
  readonly #subscribe: Subscribe;
  #forget: () => void = () => undefined;
  #waiters: Waiter<T>[] = [];
  #beginWaiters: (() => void)[] = [];
  #ended = false;

  /** @internal */
  constructor(subscribe: Subscribe, make: (message: Message) => T, signal?: AbortSignal, original?: Reader) {
    this.#make = make;
    this.#subscribe = subscribe;
    [this.#reader, this.#release] = subscribe(
      () => this.#wake(),
      () => this.close(),
      original,
    );
    this.#forget = onAbort(signal, () => this.close());
  }

  /** Resolves with this stream when it receives all values written from then on, or when it never will (see `next`). */
  begun(): Promise<this> {
    return new Promise((resolve) => {
      this.#beginWaiters.push(() => resolve(this));
      this.#wake();
    });
  }

  /** Returns the next value, or undefined if none is available. Throws the errors that `next` rejects with. */
  tryNext(): T | undefined {
    if (this.#ended) return undefined;
    try {
      const message = this.#reader.readNowait();
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

  /** Resolves with the next value; rejects with `Closed` if the stream has ended. A timeout does not lose a value. */
  async get({ timeout }: WaitOptions = {}): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const next = new Promise<IteratorResult<T, undefined>>((resolve, reject) => {
      const waiter = { resolve, reject };
      if (timeout !== undefined) {
        const expire = () => {
          this.#waiters = this.#waiters.filter((each) => each !== waiter);
          reject(new DOMException(`nothing new within ${timeout} ms`, "TimeoutError"));
        };
        timer = setTimeout(expire, timeout);
      }
      this.#waiters.push(waiter);
      this.#wake();
    });
    try {
      const { done, value } = await next;
      if (done) throw new Closed("the stream has ended.", { reason: "closed" });
      return value;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Resolves with the next `n` values. Rejects if one of them takes longer than `timeout`. */
  async take(n: number, options?: WaitOptions): Promise<T[]> {
    const found: T[] = [];
    while (found.length < n) found.push(await this.get(options));
    return found;
  }

  /** Returns an independent stream at the same position. */
  clone({ signal }: { signal?: AbortSignal | undefined } = {}): Stream<T> {
    const clone = new Stream<T>(this.#subscribe, this.#make, signal, this.#reader);
    if (this.#ended) clone.close();
    return clone;
  }

  /** Ends the stream, including pending calls of `next`. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#forget();
    this.#release();
    this.#wake();
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #wake(): void {
    if (this.#ended || this.#reader.hasBegun || this.#reader.readError) for (const resolve of this.#beginWaiters.splice(0)) resolve();
    while (this.#waiters.length > 0) {
      // The waiter is removed before the read: an error that ends the stream belongs to it.
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
