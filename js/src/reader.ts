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
  /** Its position in the live log. */
  #after = 0;
  #history = 0;
  #began = false;
  /** It was here before the live log: it hears everything in it, even what came together with its beginning. */
  #early = false;
  /** What was fetched and not read yet, the newest first. */
  #past: Message[] = [];
  #lag: Lagged | null = null;
  #failed: EbusError | null = null;
  /** Where the next page begins; null where history has been fetched. */
  #page: number | null = null;
  #asking = false;
  /** The pages under way are the whole state of a bus with keys. */
  #snapshot = false;
  readonly #port: Port;
  readonly #since: Since;
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

  /** Another reader at the same position. */
  clone(wake: () => void): Reader {
    const twin = new Reader(this.#port, this.#since, this.#pages, wake);
    twin.#after = this.#after;
    twin.#history = this.#history;
    twin.#began = this.#began;
    twin.#early = this.#early;
    twin.#past = [...this.#past];
    twin.#lag = this.#lag;
    twin.#failed = this.#failed;
    twin.#page = this.#page; // the page under way is this reader's; the twin asks for its own
    twin.#snapshot = this.#snapshot;
    return twin;
  }

  /** Whether it may miss what others write now: it has not begun, and nothing keeps it from beginning. */
  get pending(): boolean {
    const channel = this.#begin();
    return !this.#began && !this.#port.error && !channel?.unreadable;
  }

  /** Whether it has read everything there was when the connection was made, and what came since. */
  get caughtUp(): boolean {
    const channel = this.#port.channel;
    return (
      channel !== null &&
      this.#began &&
      this.#history === channel.history &&
      this.#lag === null &&
      this.#page === null &&
      this.#past.length === 0 &&
      this.#after >= channel.log.last &&
      channel.last >= channel.target
    );
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
    let item;
    try {
      item = channel.log.next(this.#after);
    } catch (error) {
      this.#after = (error as Lagged).resumeAfter;
      if (channel.log.retain === "keys") {
        // This log is no whole state; the broker has it.
        this.#after = channel.last;
        this.#beginPages(0);
      }
      throw error;
    }
    if (!item) return undefined;
    this.#after = item.offset;
    if ("gap" in item) throw new Lagged({ skipped: item.skipped, resumeAfter: item.offset });
    return item;
  }

  /** Fix where the past ends and the live log begins, as soon as there is a live log. */
  #begin(): Channel | null {
    const { channel } = this.#port;
    if (this.#began || !channel?.resumable) return channel;
    this.#began = true;
    this.#history = channel.history;
    this.#after = this.#early ? channel.began : channel.last;
    if (this.#since === undefined) return channel;
    // What the broker has begun to send after a reconnect may still be on its way: that is history here.
    const end = Math.max(this.#after, channel.target);
    let since = this.#since === "start" ? 0 : this.#since;
    if (since > end) {
      // An offset that this history has not reached is from another one.
      this.#lag = new Lagged({ skipped: null, resumeAfter: 0 });
      since = 0;
    }
    if (since > 0 && since >= channel.log.floor) {
      this.#after = since; // what it wants is here already
    } else if (end > 0) {
      this.#after = end;
      this.#beginPages(since);
    }
    return channel;
  }

  #beginPages(after: number): void {
    this.#page = after;
    this.#snapshot = after <= 0 && this.#port.channel?.log.retain === "keys";
  }

  #startOver(channel: Channel): void {
    this.#history = channel.history;
    this.#past = [];
    this.#page = null;
    this.#after = channel.log.floor;
    this.#lag = new Lagged({ skipped: channel.lost, resumeAfter: this.#after });
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
    // A snapshot loses nothing between its pages: what leaves it was replaced, and its successor comes.
    if (after > 0 && page.floor > after && !this.#snapshot) {
      const keyed = this.#port.channel?.log.retain === "keys";
      this.#lag = new Lagged({ skipped: page.floor - after, resumeAfter: keyed ? 0 : page.floor });
      if (keyed) return this.#beginPages(0);
    }
    this.#past = page.messages.filter(({ offset }) => offset <= this.#after).reverse();
    this.#page = page.more && page.through > after ? page.through : null;
  }
}
