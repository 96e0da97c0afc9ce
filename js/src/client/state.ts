/**
 * Shared state: a map that is the same for all participants of a bus.
 *
 * It uses a bus that retains by key; `core/replica` defines the rules (ordered by the server, the last writer of a key wins,
 * no flicker, at most one write of a key under way).
 *
 * `ready` resolves when the snapshot has arrived. After a reconnect that lost messages another snapshot follows. The
 * values that are shown stay until the snapshot replaces them; keys that are not in it are removed when it is complete.
 *
 * The values that a state shows are its own copies, and frozen: a program cannot change them but by `set`.
 */
import { check } from "../core/check.js";
import { equal } from "../core/equal.js";
import { Closed, Conflict, Lagged, type EbusError } from "../core/errors.js";
import type { Message } from "../core/frames.js";
import { Replica, type Change, type Settled } from "../core/replica.js";
import type { Bus, BusOptions, BusPort } from "./bus.js";
import type { Client } from "./client.js";
import { deferred, type Deferred } from "./deferred.js";
import { Listeners } from "./listeners.js";
import { waiting, type WaitOptions } from "./waiting.js";

export type { Change } from "../core/replica.js";

/**
 * Opens a shared state: a map that is the same for all participants.
 *
 * @param options - As of `client.bus`.
 */
export function sharedState<V = unknown>(client: Client, name: string | null = null, options: BusOptions = {}): State<V> {
  return new State<V>(client.bus<V>(name, options.create === false ? options : { retain: "keys", ...options }));
}

/** A write that waits: its value, encoded (null: a removal), and its answer. A write that replaces it shares the answer. */
interface Waiting {
  data: Uint8Array | null;
  readonly answer: Deferred<number>;
}

export class State<V = unknown> {
  /** Resolves when the state has arrived; rejects with the reason why it cannot. */
  readonly ready: Promise<void>;
  readonly bus: Bus<V | null>;
  readonly #replica = new Replica<V>();
  readonly #listeners = new Listeners<[Change<V>]>();
  readonly #ready = deferred<undefined>();
  readonly #waiting = new Map<string, Waiting>();
  /** Resolves when each key's write under way is settled. */
  readonly #sent = new Map<string, Promise<unknown>>();
  readonly #port: BusPort;
  readonly #source: ReturnType<BusPort["read"]>;
  #ended = false;
  /** A snapshot is under way. */
  #refreshing = true;
  /** The last offset that was read. */
  #lastRead = 0;

  /** @internal */
  constructor(bus: Bus<V>) {
    this.#port = bus.port;
    this.bus = bus as Bus<V | null>;
    this.ready = this.#ready.promise;
    this.ready.catch(() => undefined); // every use of the state reports the reason
    this.#source = this.#port.read(
      () => this.#drain(),
      () => this.#end(new Closed(`${this.bus.name} was closed on this page.`, { reason: "closed" })),
    );
    this.#drain();
  }

  /** The last 100 errors of entries that were skipped, because their value cannot be decoded here. */
  get errors(): readonly EbusError[] {
    return this.#source.errors;
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
  async set(key: string, value: V): Promise<number> {
    return this.#write(key, this.#port.encode(value));
  }

  /** Removes `key`; otherwise like `set`. */
  async delete(key: string): Promise<number> {
    return this.#write(key, null);
  }

  /**
   * Sets `key` to `value` if the server has `old`; undefined stands for a missing key. The new value is shown when it is
   * accepted.
   *
   * @returns False if the server has another value.
   */
  async replace(key: string, old: V | undefined, value: V | undefined, options: WaitOptions = {}): Promise<boolean> {
    const data = value === undefined ? null : this.#port.encode(value);
    await waiting(options, (resolve, reject) => {
      const settled = async () => {
        await this.ready;
        while (this.#replica.pending(key)) await this.#sent.get(key);
      };
      settled().then(() => resolve(undefined), reject);
      return () => undefined;
    });
    if (!equal(this.#replica.shown(key), old)) return false;
    try {
      const offset = await this.#publish(key, data, this.#replica.offset(key));
      // If the message was read already, newer ones may have been read as well.
      if (offset > this.#lastRead) this.#emit(this.#replica.apply(key, offset, this.#decoded(data)));
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

  #decoded(data: Uint8Array | null): V | undefined {
    return data ? (this.#port.decode(data) as V) : undefined;
  }

  #publish(key: string, data: Uint8Array | null, expect: number | null): Promise<number> {
    return this.#port.write(data ?? this.#port.encode(null), { key, deleted: !data, expect });
  }

  #write(key: string, data: Uint8Array | null): Promise<number> {
    check(typeof key === "string", "key is text");
    if (this.bus.error) throw this.bus.error;
    const { change, send } = this.#replica.write(key, this.#decoded(data));
    let waiting = this.#waiting.get(key);
    if (send || !waiting) waiting = { data, answer: deferred<number>() };
    waiting.data = data;
    if (send) this.#send(key, waiting);
    else this.#waiting.set(key, waiting);
    if (!equal(change.value, change.old)) this.#emit([change]);
    return waiting.answer.promise;
  }

  #send(key: string, { data, answer }: Waiting): void {
    const written = this.#publish(key, data, null);
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
      this.#send(key, waiting);
    }
    this.#emit(changes);
  }

  // --- reading ------------------------------------------------------------------------------------------------------

  #drain(): void {
    while (!this.#ended) {
      try {
        const message = this.#source.read(true);
        if (message) this.#apply(message);
        if (this.#refreshing && this.#source.caughtUp) {
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
    this.#source.release();
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
