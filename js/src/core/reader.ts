/**
 * One reader of a bus: a position in the bus's log, with the history before it.
 *
 * A reader that begins in the past reads in two parts: first pages of history, requested one by one as they are read, up to
 * the offset where the reader joined the live log; then the log itself. No message is read twice, none is left out between
 * the parts, and at most one page is in memory, however long the history is.
 *
 * `readNowait` holds all the rules and never waits. `wake` is called when it may return something else.
 */
import type { Channel, ChannelHandle } from "./channel.js";
import { check } from "./check.js";
import { Lagged, type EbusError } from "./errors.js";
import type { Delivery, Page } from "./frames.js";
import type { Position } from "./position.js";

/**
 * The position where a reader begins. Undefined: with the messages written from now on; "start": with all retained
 * messages; an offset: after that offset; -n: with the last n messages; a `Position`: after it, where the bus's history is
 * still the same one: else `Lagged`, and all retained messages.
 */
export type Since = "start" | number | Position | undefined;

/** @throws TypeError if `since` is not a beginning. */
function checkSince(since: unknown): void {
  const { epoch, offset = since, id = "" } = (since ?? {}) as Partial<Position>;
  const isPosition = typeof since === "object" && typeof epoch === "string" && typeof id === "string";
  const valid = since == null || since === "start" || (Number.isSafeInteger(offset) && (isPosition || typeof since === "number"));
  check(valid, 'since is an offset, a Position, "start", or undefined');
}

/** Fetches pages of history for a reader. */
export interface PageSource {
  fetch(handle: ChannelHandle, after: number, until: number, done: (error: EbusError | null, page: Page | undefined) => void): void;
}

export class Reader {
  /** The position in the live log. */
  #position = 0;
  /** The value of `Channel.resets` that the position belongs to. */
  #resets = 0;
  #begun = false;
  /** The reader is older than the live log: it reads all of the log, including what came together with its beginning. */
  #early = false;
  /** The fetched messages that were not read yet, newest first. */
  #past: Delivery[] = [];
  #lag: Lagged | null = null;
  /** The first page begins with this message, or the history is another one. */
  #expected: Position | null = null;
  /** The offset after which the next page begins; null if all of the history was fetched. */
  #nextPage: number | null = null;
  /** The page under way. */
  #requested: { readonly after: number; readonly resets: number | undefined } | null = null;
  /** The pages are the whole state of a bus that retains by key. */
  #inSnapshot = false;
  readonly #handle: ChannelHandle;
  readonly #since: Since;
  readonly #pages: PageSource;
  readonly #wake: () => void;

  constructor(handle: ChannelHandle, since: Since, pages: PageSource, wake: () => void) {
    checkSince(since);
    this.#handle = handle;
    this.#since = since;
    this.#pages = pages;
    this.#wake = wake;
    this.#begin();
    this.#early = !this.#begun;
  }

  /** Returns another reader at the same position. */
  clone(wake: () => void): Reader {
    const clone = new Reader(this.#handle, this.#since, this.#pages, wake);
    clone.#position = this.#position;
    clone.#resets = this.#resets;
    clone.#begun = this.#begun;
    clone.#early = this.#early;
    clone.#past = [...this.#past];
    clone.#lag = this.#lag;
    clone.#expected = this.#expected;
    clone.#nextPage = this.#nextPage; // the page under way stays this reader's; the clone requests its own
    clone.#inSnapshot = this.#inSnapshot;
    return clone;
  }

  /** True if the reader receives all messages written from now on. */
  get hasBegun(): boolean {
    this.#begin();
    return this.#begun;
  }

  /** True if the reader has read all messages that existed when the connection was made, and those since. */
  get caughtUp(): boolean {
    const channel = this.#handle.channel;
    return (
      channel !== null &&
      this.#begun &&
      this.#resets === channel.resets &&
      this.#lag === null &&
      this.#nextPage === null &&
      this.#past.length === 0 &&
      this.#position >= channel.log.last &&
      channel.last >= channel.target
    );
  }

  /** The reason why nothing more can be read; null while messages may still arrive. */
  get readError(): EbusError | null {
    return this.#handle.readError;
  }

  /**
   * Returns the next message, or undefined if none is available.
   *
   * @throws Lagged if messages were missed. The next call continues after them.
   * @throws EbusError - the reason why the bus is closed, after all received messages were read.
   */
  readNowait(): Delivery | undefined {
    const channel = this.#begin();
    if (channel && this.#begun) {
      if (this.#resets !== channel.resets) this.#startOver(channel);
      if (this.#lag) {
        const lag = this.#lag;
        this.#lag = null;
        throw lag;
      }
      const found = this.#past.pop();
      if (found) return found;
      if (this.#nextPage !== null) {
        this.#requestPage();
      } else {
        const next = this.#readLog(channel);
        if (next) return next;
      }
    }
    const error = this.readError;
    if (error) throw error;
    return undefined;
  }

  /** Requests the next page of history, if one is needed and none is under way. */
  #requestPage(): void {
    const after = this.#nextPage;
    if (after === null || this.#requested || this.readError) return;
    this.#requested = { after, resets: this.#handle.channel?.resets };
    // The message that is expected is fetched, too.
    this.#pages.fetch(this.#handle, after - (this.#expected ? 1 : 0), this.#position, (error, page) => {
      this.#pageReceived(page, error);
      this.#wake();
    });
  }

  /** The requested page has arrived, or could not be fetched. */
  #pageReceived(page: Page | undefined, error: EbusError | null): void {
    const requested = this.#requested;
    this.#requested = null;
    if (requested?.after !== this.#nextPage || requested.resets !== this.#handle.channel?.resets) return;
    if (page) {
      this.#takePage(page, requested.after);
      return;
    }
    this.#nextPage = null;
    if (error && !this.#handle.error) {
      this.#lag = new Lagged({ skipped: null, resumeAfter: this.#position }); // the messages of the page count as missed
    }
  }

  #readLog(channel: Channel): Delivery | undefined {
    let item;
    try {
      item = channel.log.next(this.#position);
    } catch (error) {
      this.#position = (error as Lagged).resumeAfter;
      if (channel.log.retain === "keys") {
        // This log does not hold the whole state; the broker does.
        this.#position = channel.last;
        this.#beginPages(0);
      }
      throw error;
    }
    if (!item) return undefined;
    this.#position = item.offset;
    if ("gap" in item) throw new Lagged({ skipped: item.skipped, resumeAfter: item.offset });
    return item;
  }

  /** Fixes the offset between history and live log, as soon as there is a live log. */
  #begin(): Channel | null {
    const { channel } = this.#handle;
    if (this.#begun || !channel?.resumable) return channel;
    this.#begun = true;
    this.#resets = channel.resets;
    this.#position = this.#early ? (this.#handle.joinedAt ?? channel.logStart) : channel.last;
    const since = this.#since;
    const position = typeof since === "object" && since;
    if (since == null || (position && !position.epoch && position.offset === 0)) return channel;
    // Messages that the broker sends after a reconnect may still be under way: for this reader they are history.
    const end = Math.max(this.#position, channel.target);
    let after = position ? position.offset : since === "start" ? 0 : since;
    if (position && position.epoch) {
      const seen = channel.log.at(after);
      const isOther = seen && !("gap" in seen) && position.id && position.id !== seen.id;
      if (position.epoch !== channel.epoch || isOther) after = end + 1;
      else if (position.id && !seen) this.#expected = position;
    }
    if (after > end) {
      // This history has not reached the offset, so the offset is from another history.
      this.#lag = new Lagged({ skipped: null, resumeAfter: 0 });
      this.#expected = null;
      after = 0;
    }
    if (after > 0 && after >= channel.log.floor && !this.#expected) {
      this.#position = after; // the log has all messages since then
    } else if (end > 0) {
      this.#position = end;
      this.#beginPages(after);
    }
    return channel;
  }

  #beginPages(after: number): void {
    this.#nextPage = after;
    this.#inSnapshot = after <= 0 && this.#handle.channel?.log.retain === "keys";
  }

  #startOver(channel: Channel): void {
    this.#resets = channel.resets;
    this.#past = [];
    this.#nextPage = null;
    this.#position = channel.log.floor;
    this.#lag = new Lagged({ skipped: channel.resetSkipped, resumeAfter: this.#position });
  }

  #takePage(page: Page, after: number): void {
    const expected = this.#expected;
    const [first] = page.messages;
    this.#expected = null;
    if (expected && first?.offset === expected.offset && first.id !== expected.id) {
      this.#lag = new Lagged({ skipped: null, resumeAfter: 0 });
      return this.#beginPages(0);
    }
    // Nothing is lost between the pages of a snapshot: an entry leaves it only when a newer one replaces it.
    if (after > 0 && page.floor > after && !this.#inSnapshot) {
      const keyed = this.#handle.channel?.log.retain === "keys";
      this.#lag = new Lagged({ skipped: page.floor - after, resumeAfter: keyed ? 0 : page.floor });
      if (keyed) return this.#beginPages(0);
    }
    this.#past = page.messages.filter(({ offset }) => offset > after && offset <= this.#position).reverse();
    this.#nextPage = page.more && page.through > after ? page.through : null;
  }
}
