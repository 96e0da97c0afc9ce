/**
 * The received messages of one bus, shared by all of its readers.
 *
 * A reader is only an offset: the position it has read up to. Reading costs the log no memory, and a slow reader is simply
 * further behind.
 *
 * Size
 *     `retain: "log"` keeps the last `size` messages, "latest" keeps one, and "keys" keeps the last message of each key (the
 *     broker bounds their number to `size`) and as many marks of removed keys. `maxBytes` bounds "log" further.
 *
 * Lagging
 *     The *floor* is the highest offset that was dropped for lack of space. A reader below the floor has missed messages and
 *     gets one `Lagged`. It continues after `resumeAfter`; with keys that is the start, because only the whole log is the
 *     whole state. A gap that the broker reports lies in the log as a `Gap`, and each reader meets it when it gets there.
 *
 * Conflation
 *     On "latest" and "keys", a message that a newer one replaces is not missed, so it does not move the floor.
 */
import { Lagged } from "./errors.js";

/** `skipped` messages up to `offset` are missing; null if their number is unknown. */
export interface Gap {
  readonly gap: true;
  readonly offset: number;
  readonly skipped: number | null;
}

interface Item {
  readonly offset: number;
  readonly key?: string | null;
  readonly deleted?: boolean;
  /** The value, encoded. */
  readonly value?: Uint8Array;
}

/** The place of an item that a newer one of the same key has replaced, or that was dropped. */
interface Gone {
  readonly gone: true;
  readonly offset: number;
}

/** The number of dropped items that may stay at the front, so that a drop costs O(1). */
const SLACK = 64;

export interface LogOptions {
  /** Default: "log". */
  retain?: "log" | "latest" | "keys" | undefined;
  /** The number of messages, or of keys. Default: 1000. */
  size?: number | undefined;
  /** The bytes of the values. Default: 64 MiB. */
  maxBytes?: number | undefined;
}

export class Log<T extends Item> {
  /** The highest offset that was dropped for lack of space. */
  floor = 0;
  /** The highest offset that was appended. */
  last = 0;
  readonly retain: "log" | "latest" | "keys";
  readonly #size: number;
  readonly #maxBytes: number;
  #items: (T | Gone)[] = [];
  #front = 0;
  #bytes = 0;
  /** The offset of each key's last item, and of each removed key's mark; oldest first. */
  readonly #keys = new Map<string | null, number>();
  readonly #removed = new Map<string | null, number>();

  constructor({ retain = "log", size = 1000, maxBytes = 64 << 20 }: LogOptions = {}) {
    this.retain = retain;
    this.#size = retain === "latest" ? 1 : size;
    this.#maxBytes = maxBytes;
  }

  /** The number of items in the log. */
  get length(): number {
    return this.retain === "keys" ? this.#keys.size + this.#removed.size : this.#items.length - this.#front;
  }

  /** Appends an item. Its offset must be greater than `last`. */
  append(item: T): void {
    if (item.offset <= this.last) throw new RangeError(`${item.offset} does not follow ${this.last}`);
    this.last = item.offset;
    this.#items.push(item);
    this.#bytes += item.value?.length ?? 0;
    if (this.retain === "keys") this.#replaceKey(item);
    else while (this.length > this.#size || (this.#bytes > this.#maxBytes && this.length > 1)) this.#drop();
  }

  /**
   * Returns the first item after offset `after`, or undefined if there is none.
   *
   * @throws Lagged if items after `after` were dropped.
   */
  next(after: number): T | undefined {
    if (after < this.floor) throw new Lagged({ skipped: this.floor - after, resumeAfter: this.retain === "keys" ? 0 : this.floor });
    for (let i = this.#index(after + 1); ; i++) {
      const item = this.#items[i];
      if (!item || !("gone" in item)) return item;
    }
  }

  /** Returns the item at `offset`; undefined if there is none. */
  at(offset: number): T | undefined {
    const item = this.#items[this.#index(offset)];
    return item?.offset === offset && !("gone" in item) ? item : undefined;
  }

  /** Drops all items and begins a new history after `floor`. */
  restart(floor = 0): void {
    this.#items = [];
    this.#front = this.#bytes = 0;
    this.#keys.clear();
    this.#removed.clear();
    this.floor = this.last = floor;
  }

  /** Returns the index of the first item whose offset is at least `offset`. */
  #index(offset: number): number {
    let low = this.#front;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#items[middle]?.offset ?? 0) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #replaceKey({ key = null, offset, deleted }: T): void {
    for (const offsets of [this.#keys, this.#removed]) {
      this.#clear(offsets.get(key));
      offsets.delete(key); // a Map keeps the order of insertion: the oldest is first
    }
    (deleted ? this.#removed : this.#keys).set(key, offset);
    const [oldest] = this.#removed;
    if (this.#removed.size > this.#size && oldest) {
      // A reader below this removal can no longer learn of it from the log.
      this.floor = Math.max(this.floor, oldest[1]);
      this.#clear(oldest[1]);
      this.#removed.delete(oldest[0]);
    }
    if (this.#items.length > 2 * this.length + SLACK) this.#compact();
  }

  #clear(offset = -1): void {
    const item = this.at(offset);
    if (!item) return;
    this.#bytes -= item.value?.length ?? 0;
    this.#items[this.#index(offset)] = { gone: true, offset };
  }

  #drop(): void {
    const offset = this.#items[this.#front]?.offset ?? 0;
    if (this.retain === "log") this.floor = offset;
    this.#clear(offset);
    this.#front += 1;
    if (this.#front > SLACK && this.#front * 2 > this.#items.length) this.#compact();
  }

  #compact(): void {
    this.#items = this.#items.filter((item) => !("gone" in item));
    this.#front = 0;
  }
}
