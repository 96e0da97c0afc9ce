/**
 * A stream: a `Reader` with an asynchronous iterator. Streams are independent, and each begins where the caller asked.
 *
 * `next()` rejects with `Lagged` if messages were missed, and continues after them: a `for await` loop ends there, and
 * another loop over the same stream continues. `next()` rejects once with the reason why the bus is closed (`Closed`,
 * `Forbidden`, …). When the stream itself is closed (`close()`, `break`, its signal, `bus.close()`), it ends normally.
 */
import { onAbort } from "../core/abort.js";
import { Closed, Lagged, type EbusError } from "../core/errors.js";
import type { Message } from "../core/frames.js";
import type { Subscription } from "./subscription.js";
import { waiting, type WaitOptions } from "./waiting.js";

interface Waiter<T> {
  resolve: (result: IteratorResult<T, undefined>) => void;
  reject: (error: unknown) => void;
}

/** Begins to read, or clones `original`; `wake` and `end` as in `Subscription`. */
export type Subscribe = (wake: () => void, end: () => void, original?: Subscription) => Subscription;

export class Stream<T> implements AsyncIterableIterator<T, undefined> {
  readonly #source: Subscription;
  readonly #make: (message: Message) => T;
  readonly #subscribe: Subscribe;
  #forget: () => void = () => undefined;
  #waiters: Waiter<T>[] = [];
  #beginWaiters: (() => void)[] = [];
  #ended = false;

  /** @internal */
  constructor(subscribe: Subscribe, make: (message: Message) => T, signal?: AbortSignal, original?: Subscription) {
    this.#make = make;
    this.#subscribe = subscribe;
    this.#source = subscribe(
      () => this.#wake(),
      () => this.close(),
      original,
    );
    this.#forget = onAbort(signal, () => this.close());
  }

  /** The last 100 errors of messages that were skipped, because their value cannot be decoded here. */
  get errors(): readonly EbusError[] {
    return this.#source.errors;
  }

  /** Resolves with this stream when it receives all values written from then on, or when it never will (see `next`). */
  begun(options: WaitOptions = {}): Promise<this> {
    return waiting(options, (resolve) => {
      const waiter = () => resolve(this);
      this.#beginWaiters.push(waiter);
      this.#wake();
      return () => (this.#beginWaiters = this.#beginWaiters.filter((each) => each !== waiter));
    });
  }

  /** Returns the next value, or undefined if none is available. Throws the errors that `next` rejects with. */
  tryNext(): T | undefined {
    if (this.#ended) return undefined;
    try {
      const message = this.#source.read();
      return message && this.#make(message);
    } catch (error) {
      if (!(error instanceof Lagged)) this.close();
      throw error;
    }
  }

  next(): Promise<IteratorResult<T, undefined>> {
    return this.#next({});
  }

  #next(options: WaitOptions): Promise<IteratorResult<T, undefined>> {
    return waiting(options, (resolve, reject) => {
      const waiter = { resolve, reject };
      this.#waiters.push(waiter);
      this.#wake();
      return () => (this.#waiters = this.#waiters.filter((each) => each !== waiter));
    });
  }

  /** Resolves with the next value; rejects with `Closed` if the stream has ended. A timeout does not lose a value. */
  async get(options: WaitOptions = {}): Promise<T> {
    const { done, value } = await this.#next(options);
    if (done) throw new Closed("the stream has ended.", { reason: "closed" });
    return value;
  }

  /** Resolves with the next `n` values. Rejects if one of them takes longer than `timeout`; those before it are then read. */
  async take(n: number, options?: WaitOptions): Promise<T[]> {
    const items: T[] = [];
    while (items.length < n) items.push(await this.get(options));
    return items;
  }

  /** Returns an independent stream at the same position. */
  clone({ signal }: { signal?: AbortSignal | undefined } = {}): Stream<T> {
    const clone = new Stream<T>(this.#subscribe, this.#make, signal, this.#source);
    if (this.#ended) clone.close();
    return clone;
  }

  /** Ends the stream, including pending calls of `next`. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#forget();
    this.#source.release();
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
    const { reader } = this.#source;
    if (this.#ended || reader.hasBegun || reader.readError) for (const resolve of this.#beginWaiters.splice(0)) resolve();
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
