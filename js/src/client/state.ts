/**
 * Shared state: a map that is the same for all participants of a bus.
 *
 * It uses a bus that retains by key; `core/replica` defines the rules (ordered by the server, the last writer of a key wins,
 * no flicker, at most one write of a key under way).
 *
 * `ready` resolves when the snapshot has arrived. After a reconnect that lost messages another snapshot follows. The
 * values that are shown stay until the snapshot replaces them; keys that are not in it are removed when it is complete.
 */
import { equal } from "../core/equal.js";
import { Closed, Conflict, Lagged, type EbusError } from "../core/errors.js";
import type { Message } from "../core/frames.js";
import type { Reader } from "../core/reader.js";
import { Replica, type Change, type Settled } from "../core/replica.js";
import type { Bus } from "./bus.js";
import { deferred, type Deferred } from "./deferred.js";
import { Listeners } from "./listeners.js";

export class State<V = unknown> {
  /** Resolves when the state has arrived; rejects with the reason why it cannot. */
  readonly ready: Promise<void>;
  readonly bus: Bus<V | null>;
  readonly #replica = new Replica<V>();
  readonly #listeners = new Listeners<[Change<V>]>();
  readonly #ready = deferred<undefined>();
  /** The answer to each key's waiting write. A write that replaces it shares the answer. */
  readonly #waiting = new Map<string, Deferred<number>>();
  /** Resolves when each key's write under way is settled. */
  readonly #sent = new Map<string, Promise<unknown>>();
  readonly #reader: Reader;
  readonly #release: () => void;
  #ended = false;
  /** A snapshot is under way. */
  #refreshing = true;
  /** The last offset that was read. */
  #lastRead = 0;

  constructor(bus: Bus<V>) {
    this.bus = bus as Bus<V | null>;
    this.ready = this.#ready.promise;
    this.ready.catch(() => undefined); // every use of the state reports the reason
    [this.#reader, this.#release] = this.bus.subscribe(
      "start",
      () => this.#drain(),
      () => this.#end(new Closed(`${this.bus.name} was closed on this page.`, { reason: "closed" })),
    );
    this.#drain();
  }

  get(key: string): V | undefined {
    return this.#replica.shown(key);
  }

  has(key: string): boolean {
    return this.#replica.shown(key) !== undefined;
  }

  get size(): number {
    return this.#replica.keys().length;
  }

  keys(): IterableIterator<string> {
    return this.#replica.keys().values();
  }

  values(): IterableIterator<V> {
    return this.#entries()
      .map(([, value]) => value)
      .values();
  }

  entries(): IterableIterator<[string, V]> {
    return this.#entries().values();
  }

  [Symbol.iterator](): IterableIterator<[string, V]> {
    return this.entries();
  }

  /**
   * Sets `key`. The new value is shown at once.
   *
   * @returns The offset of this write, or of the newer one that replaced it before it was sent. The promise rejects with a
   * named error if the write is refused; then the server's value is shown again.
   */
  set(key: string, value: V): Promise<number> {
    return this.#write(key, value);
  }

  /** Removes `key`; otherwise like `set`. */
  delete(key: string): Promise<number> {
    return this.#write(key, undefined);
  }

  /**
   * Sets `key` to `value` if the server has `old`; undefined stands for a missing key. The new value is shown when it is
   * accepted.
   *
   * @returns False if the server has another value.
   */
  async replace(key: string, old: V | undefined, value: V | undefined): Promise<boolean> {
    await this.ready;
    while (this.#replica.pending(key)) await this.#sent.get(key);
    if (!equal(this.#replica.shown(key), old)) return false;
    try {
      const options = { key, deleted: value === undefined, expect: this.#replica.offset(key) };
      const offset = await this.bus.write(value ?? null, options);
      // If the message was read already, newer ones may have been read as well.
      if (offset > this.#lastRead) this.#emit(this.#replica.apply(key, offset, value));
      return true;
    } catch (error) {
      if (error instanceof Conflict) return false;
      throw error;
    }
  }

  /**
   * Calls `listener` with each change of what is shown, including this page's own.
   *
   * @returns A function that removes the listener.
   */
  onChange(listener: (change: Change<V>) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    return this.#listeners.add(listener, signal);
  }

  /** Closes the state and its bus on this page. */
  close(): void {
    this.bus.close();
  }

  #entries(): [string, V][] {
    return this.#replica.keys().map((key) => [key, this.#replica.shown(key) as V]);
  }

  // --- writing ------------------------------------------------------------------------------------------------------

  #write(key: string, value: V | undefined): Promise<number> {
    const { change, send } = this.#replica.write(key, value);
    let answer = this.#waiting.get(key);
    if (send || !answer) answer = deferred<number>();
    if (send) this.#send(key, value, answer);
    else this.#waiting.set(key, answer);
    if (!equal(change.value, change.old)) this.#emit([change]);
    return answer.promise;
  }

  #send(key: string, value: V | undefined, answer: Deferred<number>): void {
    const written = this.bus.write(value ?? null, { key, deleted: value === undefined });
    const settled = written.then(
      (offset) => {
        this.#settled(key, this.#replica.accepted(key, offset));
        answer.resolve(offset);
      },
      (error: unknown) => {
        this.#settled(key, this.#replica.refused(key));
        answer.reject(error);
      },
    );
    this.#sent.set(key, settled);
  }

  #settled(key: string, { changes, send }: Settled<V>): void {
    this.#sent.delete(key);
    const waiting = this.#waiting.get(key);
    if (send && waiting) {
      this.#waiting.delete(key);
      this.#send(key, this.#replica.shown(key), waiting);
    }
    this.#emit(changes);
  }

  // --- reading ------------------------------------------------------------------------------------------------------

  #drain(): void {
    while (!this.#ended) {
      try {
        const message = this.#reader.readNowait();
        if (message) this.#apply(message);
        if (this.#refreshing && this.#reader.caughtUp) {
          this.#refreshing = false;
          this.#emit(this.#replica.endSnapshot());
          this.#ready.resolve(undefined);
        }
        if (!message) return;
      } catch (error) {
        if (!(error instanceof Lagged)) return this.#end(error as EbusError);
        // The whole state follows.
        this.#refreshing = true;
        this.#lastRead = 0;
        this.#replica.beginSnapshot();
      }
    }
  }

  #end(error: EbusError): void {
    this.#ended = true;
    this.#release();
    this.#ready.reject(error);
  }

  #apply({ key, offset, value, deleted }: Message): void {
    this.#lastRead = offset;
    if (key !== null) this.#emit(this.#replica.apply(key, offset, deleted ? undefined : (value as V)));
  }

  #emit(changes: readonly Change<V>[]): void {
    for (const change of changes) this.#listeners.emit(change);
  }
}
