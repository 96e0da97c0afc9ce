/**
 * What the page remembers of one bus: the newest of what it received, for all of its streams.
 *
 * A stream is nothing but the offset it has read up to. Reading costs the log no memory, a slow stream is simply further
 * behind, and all streams of a bus share one log.
 *
 * Size
 *     `retain: "log"` keeps the last `size` messages, "latest" keeps one, "keys" the last one of each key: at most twice
 *     `size`, removals included. `maxBytes` bounds what "log" keeps before that.
 *
 * Lagging
 *     The *floor* is the highest offset that was dropped for want of room. A reader below it missed something and is told,
 *     once: `Lagged`. It goes on after `resumeAfter`. A hole that the broker tells of lies in the log as a `Gap`, and each
 *     reader meets it when it gets there.
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
  #keys = new Map<string | null, number>();

  constructor({ retain = "log", size = 1000, maxBytes = 64 << 20 }: LogOptions = {}) {
    this.retain = retain;
    this.#size = retain === "latest" ? 1 : size;
    this.#maxBytes = maxBytes;
  }

  /** How many items are kept. */
  get length(): number {
    return this.retain === "keys" ? this.#keys.size : this.#offsets.length - this.#front;
  }

  /** Add the newest item, of about `bytes` bytes. Its offset must be greater than `last`. */
  append(item: T, bytes = 0): void {
    const { offset, key = null } = item;
    if (offset <= this.last) throw new RangeError(`offset ${offset} does not follow ${this.last}`);
    this.last = offset;
    this.#items.push(item);
    this.#offsets.push(offset);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    if (this.retain === "keys") this.#takeOver(key, offset);
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
    this.floor = this.last = floor;
  }

  *#from(after: number): Generator<T, undefined> {
    if (after < this.floor) throw new Lagged({ skipped: this.floor - after, resumeAfter: this.floor });
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

  #takeOver(key: string | null, offset: number): void {
    const replaced = this.#keys.get(key);
    if (replaced !== undefined) this.#clear(this.#index(replaced));
    this.#keys.delete(key);
    this.#keys.set(key, offset); // a Map remembers insertion: the oldest is first
    const [oldest] = this.#keys;
    if (this.#keys.size > 2 * this.#size && oldest) {
      this.floor = oldest[1];
      this.#clear(this.#index(oldest[1]));
      this.#keys.delete(oldest[0]);
    }
    if (this.#items.length > 2 * this.#keys.size + SLACK) this.#compact();
  }

  #clear(i: number): void {
    this.#items[i] = null;
    this.#bytes -= this.#sizes[i] ?? 0;
    this.#sizes[i] = 0;
  }

  #drop(): void {
    if (this.retain === "log") this.floor = this.#offsets[this.#front] ?? this.floor;
    this.#clear(this.#front);
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
