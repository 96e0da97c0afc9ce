/**
 * Shared state: a Map that everyone on a bus has the same of. It stands on a bus that retains by key; `replica` has its
 * rules (server-ordered, last writer wins a key, no flicker, at most one write of a key on its way).
 *
 * `ready` resolves when the snapshot has arrived. After a reconnect that lost messages a new one follows: what is shown stays
 * until it says otherwise, and what it does not hold goes when it is complete.
 */
import type { Bus } from "./bus.js";
import { Closed, Conflict, Lagged, type EbusError } from "./errors.js";
import type { Message } from "./frames.js";
import type { Reader } from "./reader.js";
import { Replica, type Change } from "./replica.js";
import { deferred, equal, Listeners, type Deferred } from "./util.js";

export class State<V = unknown> {
  /** Resolves when what others wrote before is here; rejects with the reason why it can't be. */
  readonly ready: Promise<void>;
  readonly bus: Bus<V | null>;
  readonly #replica = new Replica<V>();
  readonly #listeners = new Listeners<[Change<V>]>();
  readonly #ready = deferred<undefined>();
  /** The promise of the write that waits for the one on its way, by key: whatever it replaces shares it. */
  readonly #waiting = new Map<string, Deferred<number>>();
  readonly #sent = new Map<string, Promise<unknown>>();
  readonly #reader: Reader;
  readonly #release: () => void;
  #ended = false;
  /** A snapshot is on its way. */
  #refreshing = true;
  /** The last offset that was read. */
  #read = 0;

  constructor(bus: Bus<V>) {
    this.bus = bus as Bus<V | null>;
    this.ready = this.#ready.promise;
    this.ready.catch(() => undefined); // it shows wherever the state is used
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
   * Set `key`, here at once. Resolves with the offset of this write, or of the newer one that replaced it before it was
   * sent; rejects with the named error if that is refused (then what the server has is shown again).
   */
  set(key: string, value: V): Promise<number> {
    return this.#write(key, value);
  }

  /** Remove `key`; otherwise like `set`. */
  delete(key: string): Promise<number> {
    return this.#write(key, undefined);
  }

  /**
   * Set `key` to `value` only if the server has `old` (undefined: nothing). Resolves with false where it has something
   * else. Nothing is shown before it is accepted.
   */
  async replace(key: string, old: V | undefined, value: V | undefined): Promise<boolean> {
    await this.ready;
    while (this.#replica.pending(key)) await this.#sent.get(key);
    if (!equal(this.#replica.shown(key), old)) return false;
    try {
      const how = { key, deleted: value === undefined, expect: this.#replica.offset(key) };
      const offset = await this.bus.write(value ?? null, how);
      // Once it was read, what came after it may have been read as well.
      if (offset > this.#read) this.#tell(this.#replica.apply(key, offset, value));
      return true;
    } catch (error) {
      if (error instanceof Conflict) return false;
      throw error;
    }
  }

  /** Call `listener` with every change of what is shown, this page's own included. Returns how to stop. */
  onChange(listener: (change: Change<V>) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    return this.#listeners.add(listener, signal);
  }

  /** Close it on this page, with its bus. */
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
    if (!equal(change.value, change.old)) this.#tell([change]);
    return answer.promise;
  }

  #send(key: string, value: V | undefined, answer: Deferred<number>): void {
    const written = this.bus.write(value ?? null, { key, deleted: value === undefined });
    const settled = written.then(
      (offset) => {
        this.#acked(key, offset);
        answer.resolve(offset);
      },
      (error: unknown) => {
        this.#acked(key, null);
        answer.reject(error);
      },
    );
    this.#sent.set(key, settled);
  }

  #acked(key: string, offset: number | null): void {
    this.#sent.delete(key);
    const { changes, send } = this.#replica.acked(key, offset);
    const waiting = this.#waiting.get(key);
    if (send && waiting) {
      this.#waiting.delete(key);
      this.#send(key, this.#replica.shown(key), waiting);
    }
    this.#tell(changes);
  }

  // --- reading ------------------------------------------------------------------------------------------------------

  #drain(): void {
    while (!this.#ended) {
      try {
        const message = this.#reader.read();
        if (message) this.#arrived(message);
        if (this.#refreshing && this.#reader.caughtUp) {
          this.#refreshing = false;
          this.#tell(this.#replica.endSnapshot());
          this.#ready.resolve(undefined);
        }
        if (!message) return;
      } catch (error) {
        if (!(error instanceof Lagged)) return this.#end(error as EbusError);
        // The whole state follows.
        this.#refreshing = true;
        this.#read = 0;
        this.#replica.beginSnapshot();
      }
    }
  }

  #end(error: EbusError): void {
    this.#ended = true;
    this.#release();
    this.#ready.reject(error);
  }

  #arrived({ key, offset, value, deleted }: Message): void {
    this.#read = offset;
    if (key !== null) this.#tell(this.#replica.apply(key, offset, deleted ? undefined : (value as V)));
  }

  #tell(changes: readonly Change<V>[]): void {
    for (const change of changes) this.#listeners.emit(change);
  }
}
