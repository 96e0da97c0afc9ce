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
import { Lagged, type EbusError } from "./errors.js";
import type { Message, Page } from "./frames.js";

/**
 * The position where a reader begins. Undefined: with the messages written from now on; "start": with all retained
 * messages; an offset: after that offset; -n: with the last n messages.
 */
export type Since = "start" | number | undefined;

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
  #past: Message[] = [];
  #lag: Lagged | null = null;
  /** Why a page of history could not be fetched. */
  #failed: EbusError | null = null;
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
    clone.#failed = this.#failed;
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
    return this.#failed ?? this.#handle.readError;
  }

  /**
   * Returns the next message, or undefined if none is available.
   *
   * @throws Lagged if messages were missed. The next call continues after them.
   * @throws EbusError - the reason why the bus is closed, after all received messages were read.
   */
  readNowait(): Message | undefined {
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
      } else if (!this.#failed) {
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
    if (after === null || this.#requested || this.#handle.error) return;
    this.#requested = { after, resets: this.#handle.channel?.resets };
    this.#pages.fetch(this.#handle, after, this.#position, (error, page) => {
      this.#pageReceived(page, error);
      this.#wake();
    });
  }

  /** The requested page has arrived, or could not be fetched. */
  #pageReceived(page: Page | undefined, error: EbusError | null): void {
    const requested = this.#requested;
    this.#requested = null;
    if (error) {
      this.#failed = error;
    } else if (page && requested?.after === this.#nextPage && requested.resets === this.#handle.channel?.resets) {
      this.#takePage(page, requested.after);
    }
  }

  #readLog(channel: Channel): Message | undefined {
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
    this.#position = this.#early ? channel.logStart : channel.last;
    if (this.#since === undefined) return channel;
    // Messages that the broker sends after a reconnect may still be under way: for this reader they are history.
    const end = Math.max(this.#position, channel.target);
    let since = this.#since === "start" ? 0 : this.#since;
    if (since > end) {
      // This history has not reached the offset, so the offset is from another history.
      this.#lag = new Lagged({ skipped: null, resumeAfter: 0 });
      since = 0;
    }
    if (since > 0 && since >= channel.log.floor) {
      this.#position = since; // the log has all messages since then
    } else if (end > 0) {
      this.#position = end;
      this.#beginPages(since);
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
    // Nothing is lost between the pages of a snapshot: an entry leaves it only when a newer one replaces it.
    if (after > 0 && page.floor > after && !this.#inSnapshot) {
      const keyed = this.#handle.channel?.log.retain === "keys";
      this.#lag = new Lagged({ skipped: page.floor - after, resumeAfter: keyed ? 0 : page.floor });
      if (keyed) return this.#beginPages(0);
    }
    this.#past = page.messages.filter(({ offset }) => offset <= this.#position).reverse();
    this.#nextPage = page.more && page.through > after ? page.through : null;
  }
}
