/**
 * What the page remembers of one bus: the newest of what it received, for all of its streams.
 *
 * A stream is nothing but the offset it has read up to. Reading costs the log no memory, a slow stream is simply further
 * behind, and all streams of a bus share one log.
 *
 * Size
 *     `retain: "log"` keeps the last `size` messages, "latest" keeps one, "keys" the last one of each key (the broker sees
 *     to it that there are at most `size`), and as many marks of removed keys. `maxBytes` bounds what "log" keeps before that.
 *
 * Lagging
 *     The *floor* is the highest offset that was dropped for want of room. A reader below it missed something and is told,
 *     once: `Lagged`. It goes on after `resumeAfter`; with keys that is the start, for only all of it is the whole state. A
 *     hole that the broker tells of lies in the log as a `Gap`, and each reader meets it when it gets there.
 *
 * Conflation
 *     On "latest" and "keys" a message that a newer one replaces is not missed, so it moves no floor.
 */
import { Lagged } from "./errors.js";

/** Messages are missing up to `offset`; `skipped` of them, null where nobody can know. */
export interface Gap {
  readonly gap: true;
  readonly offset: number;
  readonly skipped: number | null;
}

interface Item {
  readonly offset: number;
  readonly key?: string | null;
  readonly deleted?: boolean;
}

/** Dropped items that may stay at the front before they are cut off, so that a drop costs O(1). */
const SLACK = 64;

export interface LogOptions {
  retain?: "log" | "latest" | "keys" | undefined;
  size?: number | undefined;
  maxBytes?: number | undefined;
}

export class Log<T extends Item> {
  /** The highest offset that was dropped for want of room. */
  floor = 0;
  /** The highest offset that was appended. */
  last = 0;
  readonly retain: "log" | "latest" | "keys";
  readonly #size: number;
  readonly #maxBytes: number;
  // `null` where a newer item of the same key has taken over.
  #items: (T | null)[] = [];
  #offsets: number[] = [];
  #sizes: number[] = [];
  #front = 0;
  #bytes = 0;
  readonly #keys = new Map<string | null, number>();
  readonly #removed = new Map<string | null, number>();

  constructor({ retain = "log", size = 1000, maxBytes = 64 << 20 }: LogOptions = {}) {
    this.retain = retain;
    this.#size = retain === "latest" ? 1 : size;
    this.#maxBytes = maxBytes;
  }

  /** How many items are kept. */
  get length(): number {
    return this.retain === "keys" ? this.#keys.size + this.#removed.size : this.#offsets.length - this.#front;
  }

  /** Add the newest item, of about `bytes` bytes. Its offset must be greater than `last`. */
  append(item: T, bytes = 0): void {
    const { offset } = item;
    if (offset <= this.last) throw new RangeError(`offset ${offset} does not follow ${this.last}`);
    this.last = offset;
    this.#items.push(item);
    this.#offsets.push(offset);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    if (this.retain === "keys") this.#takeOver(item);
    else while (this.length > this.#size || (this.#bytes > this.#maxBytes && this.length > 1)) this.#drop();
  }

  /** The first item after offset `after`, if there is one. Throws `Lagged` where items after `after` were dropped. */
  next(after: number): T | undefined {
    return this.#from(after).next().value ?? undefined;
  }

  /** All items after offset `after`, oldest first. Throws `Lagged` as `next` does. */
  read(after: number): T[] {
    return [...this.#from(after)];
  }

  /** Forget everything: what follows begins after `floor`, and has nothing to do with what was before. */
  restart(floor = 0): void {
    this.#items = [];
    this.#offsets = [];
    this.#sizes = [];
    this.#front = this.#bytes = 0;
    this.#keys.clear();
    this.#removed.clear();
    this.floor = this.last = floor;
  }

  *#from(after: number): Generator<T, undefined> {
    if (after < this.floor) throw new Lagged({ skipped: this.floor - after, resumeAfter: this.retain === "keys" ? 0 : this.floor });
    if (after >= this.last) return;
    for (let i = this.#index(after + 1); i < this.#items.length; i++) {
      const item = this.#items[i];
      if (item) yield item;
    }
  }

  /** The place of the first item whose offset is at least `offset`. */
  #index(offset: number): number {
    let low = this.#front;
    let high = this.#offsets.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#offsets[middle] ?? 0) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #takeOver({ key = null, offset, deleted }: T): void {
    for (const held of [this.#keys, this.#removed]) {
      this.#clear(held.get(key));
      held.delete(key); // a Map remembers insertion: the oldest is first
    }
    (deleted ? this.#removed : this.#keys).set(key, offset);
    const [oldest] = this.#removed;
    if (this.#removed.size > this.#size && oldest) {
      // A reader from before this removal can't learn of it here any more.
      this.floor = Math.max(this.floor, oldest[1]);
      this.#clear(oldest[1]);
      this.#removed.delete(oldest[0]);
    }
    if (this.#items.length > 2 * this.length + SLACK) this.#compact();
  }

  #clear(offset: number | undefined): void {
    if (offset === undefined) return;
    const i = this.#index(offset);
    this.#items[i] = null;
    this.#bytes -= this.#sizes[i] ?? 0;
    this.#sizes[i] = 0;
  }

  #drop(): void {
    if (this.retain === "log") this.floor = this.#offsets[this.#front] ?? this.floor;
    this.#clear(this.#offsets[this.#front]);
    this.#front += 1;
    if (this.#front > SLACK && this.#front * 2 > this.#offsets.length) this.#compact();
  }

  #compact(): void {
    const kept = (_: unknown, i: number) => this.#items[i] !== null;
    this.#offsets = this.#offsets.filter(kept);
    this.#sizes = this.#sizes.filter(kept);
    this.#items = this.#items.filter((item) => item !== null);
    this.#front = 0;
  }
}
