/**
 * One page's copy of a shared state: a mapping that the server orders, and everyone ends up agreeing on. Pure.
 *
 * The last write of a key, in the server's order, wins. What is written here shows at once; until it has its place in the
 * order, other people's writes of that key are noted but not shown, for they may come before or after it. Then the latest
 * of them all is shown. So a slider being dragged never jumps back, and everybody ends with the same value.
 *
 * While a write of a key is on its way, a newer one waits, and replaces one that waits already: a drag at 60 Hz over a
 * slow line sends what the line takes, and the last value always.
 *
 * `undefined` stands for a key that is not there: no value that travels is undefined.
 */
import { equal } from "./util.js";

export interface Change<V = unknown> {
  readonly key: string;
  /** What is shown now; undefined: the key is gone. */
  readonly value: V | undefined;
  readonly old: V | undefined;
  /** Written by this page. */
  readonly local: boolean;
}

interface Known<V> {
  readonly offset: number;
  readonly value: V | undefined;
}

interface Mine<V> {
  readonly sent: V | undefined;
  next?: { value: V | undefined };
}

export class Replica<V = unknown> {
  readonly #known = new Map<string, Known<V>>();
  readonly #mine = new Map<string, Mine<V>>();
  /** What was known before the snapshot that is on its way, and was not in it so far. */
  readonly #stale = new Set<string>();

  /** What is shown for `key`. */
  shown(key: string): V | undefined {
    const mine = this.#mine.get(key);
    return mine ? shownOf(mine) : this.#known.get(key)?.value;
  }

  /** The offset of the value that the server is known to have; 0 where it has none. */
  offset(key: string): number {
    const known = this.#known.get(key);
    return known?.value === undefined ? 0 : known.offset;
  }

  /** Whether a write of `key` is on its way. */
  pending(key: string): boolean {
    return this.#mine.has(key);
  }

  keys(): string[] {
    const all = new Set([...this.#known.keys(), ...this.#mine.keys()]);
    return [...all].filter((key) => this.shown(key) !== undefined);
  }

  /** Write here. `send`: it is to be sent now; else `acked` will say so. */
  write(key: string, value: V | undefined): { change: Change<V>; send: boolean } {
    const old = this.shown(key);
    const mine = this.#mine.get(key);
    if (mine) mine.next = { value };
    else this.#mine.set(key, { sent: value });
    return { change: { key, value, old, local: true }, send: !mine };
  }

  /**
   * The write on its way has its place at `offset`, or (null) was refused. `send`: a newer one waited, and `shown` is now
   * to be sent.
   */
  acked(key: string, offset: number | null): { changes: Change<V>[]; send: boolean } {
    const mine = this.#mine.get(key);
    if (!mine) return { changes: [], send: false };
    const old = shownOf(mine);
    this.#mine.delete(key);
    if (offset !== null && offset > (this.#known.get(key)?.offset ?? 0)) this.#know(key, offset, mine.sent);
    if (!mine.next) return { changes: this.#settled(key, old), send: false };
    this.#mine.set(key, { sent: mine.next.value });
    return { changes: [], send: true };
  }

  /** A write, anyone's, has its place in the order. */
  apply(key: string, offset: number, value: V | undefined): Change<V>[] {
    // At the same offset it is our own, as the bus's filter has left it.
    if (offset < (this.#known.get(key)?.offset ?? 0)) return [];
    const old = this.shown(key);
    this.#know(key, offset, value);
    return this.#settled(key, old);
  }

  /** All that the server has follows, up to `endSnapshot`. What is shown stays until then, so that nothing flickers. */
  beginSnapshot(): void {
    for (const [key, { value }] of this.#known) {
      this.#stale.add(key);
      this.#known.set(key, { offset: 0, value });
    }
  }

  /** The snapshot is complete: what was not in it is gone. */
  endSnapshot(): Change<V>[] {
    const stale = [...this.#stale];
    this.#stale.clear();
    return stale.flatMap((key) => {
      const old = this.shown(key);
      this.#known.delete(key);
      return this.#changed(key, old);
    });
  }

  #know(key: string, offset: number, value: V | undefined): void {
    this.#known.set(key, { offset, value });
    this.#stale.delete(key);
  }

  #settled(key: string, old: V | undefined): Change<V>[] {
    // A removal need be remembered only while an ack may still bring an older write: else removed keys would pile up.
    if (!this.#mine.has(key) && this.#known.get(key)?.value === undefined) this.#known.delete(key);
    return this.#changed(key, old);
  }

  #changed(key: string, old: V | undefined): Change<V>[] {
    const value = this.shown(key);
    return equal(value, old) ? [] : [{ key, value, old, local: false }];
  }
}

function shownOf<V>(mine: Mine<V>): V | undefined {
  return mine.next ? mine.next.value : mine.sent;
}
