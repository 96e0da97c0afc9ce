/**
 * One client's copy of a shared state: a map whose writes the server orders, so that all copies converge.
 *
 * For each key, the last write in the server's order wins. A local write is shown immediately. Until it has its place in
 * the order, other clients' writes of that key are recorded but not shown, because they may come before or after it. Then
 * the latest of all is shown. So a slider never jumps back while it is dragged, and all clients end with the same value.
 *
 * While a write of a key is under way, a newer one waits and replaces any that waits already: a drag at 60 Hz over a slow
 * connection sends as many values as the connection takes, and always the last one.
 *
 * `undefined` stands for a missing key; no value on a bus is undefined.
 */
import { equal } from "./equal.js";

export interface Change<V = unknown> {
  readonly key: string;
  /** The new value; undefined if the key was removed. */
  readonly value: V | undefined;
  /** The previous value; undefined if the key was missing. */
  readonly old: V | undefined;
  /** True if this client made the change. */
  readonly local: boolean;
}

/** The changes of what is shown; `send` states that a write waited and that `shown(key)` is to be sent now. */
export interface Settled<V> {
  readonly changes: Change<V>[];
  readonly send: boolean;
}

interface Confirmed<V> {
  readonly offset: number;
  readonly value: V | undefined;
}

interface Local<V> {
  readonly sent: V | undefined;
  next?: { value: V | undefined };
}

export class Replica<V = unknown> {
  /** The values that the server is known to have. */
  readonly #confirmed = new Map<string, Confirmed<V>>();
  /** The writes of this client that are under way or wait. */
  readonly #local = new Map<string, Local<V>>();
  /** The keys that were known before the snapshot under way and have not occurred in it. */
  readonly #stale = new Set<string>();

  /** Returns the value to show for `key`; undefined if it is missing. */
  shown(key: string): V | undefined {
    const local = this.#local.get(key);
    return local ? newest(local) : this.#confirmed.get(key)?.value;
  }

  /** Returns the offset of the value that the server is known to have; 0 if it has none. */
  offset(key: string): number {
    const confirmed = this.#confirmed.get(key);
    return confirmed?.value === undefined ? 0 : confirmed.offset;
  }

  /** Returns whether a write of `key` is under way. */
  pending(key: string): boolean {
    return this.#local.has(key);
  }

  /** Returns the keys that have a value to show. */
  keys(): string[] {
    const all = new Set([...this.#confirmed.keys(), ...this.#local.keys()]);
    return [...all].filter((key) => this.shown(key) !== undefined);
  }

  /** Writes locally; undefined removes the key. `send`: send the value now; else `accepted` or `refused` will request it. */
  write(key: string, value: V | undefined): { change: Change<V>; send: boolean } {
    const old = this.shown(key);
    const local = this.#local.get(key);
    if (local) local.next = { value };
    else this.#local.set(key, { sent: value });
    return { change: { key, value, old, local: true }, send: !local };
  }

  /** The server has accepted the write under way at `offset`. */
  accepted(key: string, offset: number): Settled<V> {
    return this.#writeSettled(key, offset);
  }

  /** The server has refused the write under way. */
  refused(key: string): Settled<V> {
    return this.#writeSettled(key, 0);
  }

  /** Applies a write, of any client, that has its place in the order. */
  apply(key: string, offset: number, value: V | undefined): Change<V>[] {
    // At the same offset it is this client's own write, as the bus's filter has left it.
    if (offset < (this.#confirmed.get(key)?.offset ?? 0)) return [];
    const old = this.shown(key);
    this.#confirm(key, offset, value);
    return this.#changed(key, old);
  }

  /** The server's whole state follows, until `endSnapshot`. Until then all keys stay, so that nothing flickers. */
  beginSnapshot(): void {
    for (const [key, { value }] of this.#confirmed) {
      this.#stale.add(key);
      this.#confirmed.set(key, { offset: 0, value });
    }
  }

  /** The snapshot is complete: keys that were not in it are removed. */
  endSnapshot(): Change<V>[] {
    const stale = [...this.#stale];
    this.#stale.clear();
    return stale.flatMap((key) => {
      const old = this.shown(key);
      this.#confirmed.delete(key);
      return this.#difference(key, old);
    });
  }

  #writeSettled(key: string, offset: number): Settled<V> {
    const local = this.#local.get(key);
    if (!local) return { changes: [], send: false };
    const old = newest(local);
    this.#local.delete(key);
    if (offset > (this.#confirmed.get(key)?.offset ?? 0)) this.#confirm(key, offset, local.sent);
    if (!local.next) return { changes: this.#changed(key, old), send: false };
    this.#local.set(key, { sent: local.next.value });
    return { changes: [], send: true };
  }

  #confirm(key: string, offset: number, value: V | undefined): void {
    this.#confirmed.set(key, { offset, value });
    this.#stale.delete(key);
  }

  #changed(key: string, old: V | undefined): Change<V>[] {
    // A removal matters only while an answer may still confirm an older write; keeping it longer would fill the memory.
    if (!this.#local.has(key) && this.#confirmed.get(key)?.value === undefined) this.#confirmed.delete(key);
    return this.#difference(key, old);
  }

  #difference(key: string, old: V | undefined): Change<V>[] {
    const value = this.shown(key);
    return equal(value, old) ? [] : [{ key, value, old, local: false }];
  }
}

function newest<V>(local: Local<V>): V | undefined {
  return local.next ? local.next.value : local.sent;
}
