/**
 * A stream: a `Reader` that can be waited for. Each one is independent, and starts where it was asked to.
 *
 * `next()` rejects with `Lagged` where messages were missed, and goes on after that: a `for await` ends there, and another
 * one over the same stream continues. It rejects, once, with what closed the bus (`Closed`, `Forbidden`, …); when the
 * stream itself is closed (`close()`, `break`, the signal, `bus.close()`), it just ends.
 */
import { Closed, Lagged } from "./errors.js";
import type { Message } from "./frames.js";
import type { Reader } from "./reader.js";
import { onAbort } from "./util.js";

interface Waiter<T> {
  resolve: (result: IteratorResult<T, undefined>) => void;
  reject: (error: unknown) => void;
}

/**
 * Opens a reader (a clone of `twin`, where one is given); `wake` is called when it may have something, `end` when it never
 * will. The second item lets go of it.
 */
export type Subscribe = (wake: () => void, end: () => void, twin?: Reader) => readonly [Reader, () => void];

export interface WaitOptions {
  /** How long one item may take, in milliseconds; then it rejects with a `TimeoutError`. Default: as long as it takes. */
  timeout?: number | undefined;
}

export class Stream<T> implements AsyncIterableIterator<T, undefined> {
  readonly #reader: Reader;
  readonly #release: () => void;
  readonly #make: (message: Message) => T;
  readonly #subscribe: Subscribe;
  #forget: () => void = () => undefined;
  #waiters: Waiter<T>[] = [];
  #beginning: (() => void)[] = [];
  #ended = false;

  /** @internal */
  constructor(subscribe: Subscribe, make: (message: Message) => T, signal?: AbortSignal, twin?: Reader) {
    this.#make = make;
    this.#subscribe = subscribe;
    [this.#reader, this.#release] = subscribe(
      () => this.#wake(),
      () => this.close(),
      twin,
    );
    this.#forget = onAbort(signal, () => this.close());
  }

  /** This stream, once it hears whatever is written from now on; or never will, and its next read says why. */
  begun(): Promise<this> {
    return new Promise((resolve) => {
      this.#beginning.push(() => resolve(this));
      this.#wake();
    });
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

  /** The next value; rejects with `Closed` where the stream has ended. What comes too late is there for the next one. */
  async get({ timeout }: WaitOptions = {}): Promise<T> {
    const { done, value } = await new Promise<IteratorResult<T, undefined>>((resolve, reject) => {
      const waiter = { resolve, reject };
      if (timeout !== undefined) {
        const late = () => {
          this.#waiters = this.#waiters.filter((each) => each !== waiter);
          reject(new DOMException(`nothing new within ${timeout} ms`, "TimeoutError"));
        };
        const timer = setTimeout(late, timeout);
        waiter.resolve = (result) => (clearTimeout(timer), resolve(result));
        waiter.reject = (error) => (clearTimeout(timer), reject(error as Error));
      }
      this.#waiters.push(waiter);
      this.#wake();
    });
    if (done) throw new Closed("the stream has ended.", { reason: "closed" });
    return value;
  }

  /** The next `n` values. Rejects where one of them takes longer than `timeout`. */
  async take(n: number, options?: WaitOptions): Promise<T[]> {
    const found: T[] = [];
    while (found.length < n) found.push(await this.get(options));
    return found;
  }

  /** Another stream at the same position, which reads on by itself. */
  clone({ signal }: { signal?: AbortSignal | undefined } = {}): Stream<T> {
    const twin = new Stream<T>(this.#subscribe, this.#make, signal, this.#reader);
    if (this.#ended) twin.close();
    return twin;
  }

  /** End the stream. Whoever waits for a value is told that there is none. */
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
    if (this.#ended || !this.#reader.pending) for (const tell of this.#beginning.splice(0)) tell();
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
