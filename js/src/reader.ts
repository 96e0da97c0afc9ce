/**
 * One reader of a bus: a position in the bus's log, with the history before it.
 *
 * A reader that begins in the past reads in two parts: pages of history, asked for as they are read, up to the offset
 * where it joined the live log; then the log itself. Nothing is read twice, nothing is left out between them, and however
 * long the history is, one page of it is in memory.
 *
 * `read` holds all the rules and never waits. Whoever waits is told by `wake` when it may return something else.
 */
import type { Channel, Fetch, Port } from "./channel.js";
import { Lagged, type EbusError } from "./errors.js";
import type { Message, Page } from "./frames.js";

/**
 * Where a reader begins: undefined, with what is written from now on; "start", with everything kept; an offset, after it;
 * -n, with the last n messages.
 */
export type Since = "start" | number | undefined;

/** What a reader needs of its client. */
export interface Pages {
  fetch(port: Port, after: number, until: number, done: (error: EbusError | null, page: Page | undefined) => void): Fetch;
}

export class Reader {
  /** Another history, or a snapshot, has taken the place of what was read: what follows is all there is. */
  startedOver = false;
  #after = 0;
  #history = 0;
  #began = false;
  /** It was here before the live log: it hears everything in it, even what came together with its beginning. */
  #early = false;
  #first = true;
  /** What was fetched and not read yet, the newest first. */
  #past: Message[] = [];
  #lag: Lagged | null = null;
  #failed: EbusError | null = null;
  /** Where the next page begins; null where history has been fetched. */
  #page: number | null = null;
  #asking = false;
  readonly #port: Port;
  #since: Since;
  readonly #pages: Pages;
  readonly #wake: () => void;

  constructor(port: Port, since: Since, pages: Pages, wake: () => void) {
    this.#port = port;
    this.#since = since;
    this.#pages = pages;
    this.#wake = wake;
    this.#begin();
    this.#early = !this.#began;
  }

  /** Whether history has been read, and only live messages follow. */
  get live(): boolean {
    return this.#began && this.#page === null && this.#past.length === 0;
  }

  /**
   * The next message; undefined where there is none yet. Throws `Lagged` where messages were missed (the reader goes on
   * behind them), and what closed the bus once everything that arrived has been read.
   */
  read(): Message | undefined {
    const channel = this.#begin();
    if (channel && this.#began) {
      if (this.#history !== channel.history) this.#startOver(channel);
      if (this.#lag) {
        const lag = this.#lag;
        this.#lag = null;
        throw lag;
      }
      const found = this.#past.pop();
      if (found) return found;
      if (this.#page !== null) {
        this.#ask(this.#page);
      } else if (!this.#failed) {
        const next = this.#next(channel);
        if (next) return next;
      }
    }
    const error = this.#failed ?? this.#port.error ?? channel?.unreadable;
    if (error) throw error;
    return undefined;
  }

  #next(channel: Channel): Message | undefined {
    try {
      const item = channel.log.next(this.#after);
      if (!item) return undefined;
      this.#after = item.offset;
      if ("gap" in item) throw new Lagged({ skipped: item.skipped, resumeAfter: item.offset });
      return item;
    } catch (error) {
      if (error instanceof Lagged) this.#after = error.resumeAfter;
      throw error;
    }
  }

  /** Fix where the past ends and the live log begins, as soon as there is a live log. */
  #begin(): Channel | null {
    const { channel } = this.#port;
    if (this.#began || !channel?.resumable) return channel;
    this.#began = true;
    this.#history = channel.history;
    this.#after = this.#early ? channel.began : channel.last;
    const since = this.#since;
    if (since === undefined) return channel;
    // What the broker has begun to send after a reconnect may still be on its way: that is history here.
    const end = Math.max(this.#after, channel.target);
    if (since !== "start" && since > end) {
      // An offset that this history has not reached is from another one.
      this.#lag = new Lagged({ skipped: null, resumeAfter: 0 });
      this.#since = "start";
      this.#page = 0;
    } else if (since !== "start" && since >= channel.log.floor) {
      this.#after = since;
      return channel;
    } else if (end > 0) {
      this.#page = since === "start" ? 0 : since;
    }
    this.#after = end;
    return channel;
  }

  #startOver(channel: Channel): void {
    this.startedOver = true;
    this.#history = channel.history;
    this.#past = [];
    this.#page = null;
    this.#after = channel.log.floor;
    // "latest" and "keys" lose nothing that still matters where the broker says so.
    if (channel.lost !== 0) this.#lag = new Lagged({ skipped: channel.lost, resumeAfter: this.#after });
  }

  #ask(after: number): void {
    if (this.#asking || this.#port.error) return;
    this.#asking = true;
    const channel = this.#port.channel;
    const history = channel?.history;
    this.#pages.fetch(this.#port, after, this.#after, (error, page) => {
      this.#asking = false;
      if (error) this.#failed = error;
      else if (page && history === channel?.history && this.#page === after) this.#arrived(page, after);
      this.#wake();
    });
  }

  #arrived(page: Page, after: number): void {
    // "start" means what is kept, and -n what is kept of the last n: neither can have missed anything before its first page.
    // Between pages, only a log loses what was not read yet; what leaves a keyed bus was replaced, and its successor comes.
    const asked = this.#first ? this.#since !== "start" && after >= 0 : this.#port.channel?.log.retain === "log";
    this.#first = false;
    if (asked && page.floor > after) this.#lag = new Lagged({ skipped: page.floor - after, resumeAfter: page.floor });
    this.#past = page.messages.filter(({ offset }) => offset <= this.#after).reverse();
    this.#page = page.more && page.through > after ? page.through : null;
  }
}
