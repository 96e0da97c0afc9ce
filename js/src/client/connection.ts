/**
 * Runs a `Session`: one transport at a time, the timers, and the delivery of events.
 *
 * Everything that is written in one turn of the event loop travels in one message. A connection that ends is made again
 * after a random delay that grows up to `MAX_DELAY` (full jitter, so that a class of pages does not reconnect at once), and
 * immediately when the browser is online again or the page becomes visible. When the browser goes offline, the connection
 * is checked with a ping. `status` is "connecting", "live", "reconnecting", or "closed" (then `error` is the reason).
 *
 * A page shares one connection: it is open while a client retains it, and closes shortly after the last release.
 */
import type { ChannelHandle } from "../core/channel.js";
import { Closed, ConnectionLost, EbusError } from "../core/errors.js";
import type { SessionEvent } from "../core/events.js";
import { PATIENCE } from "../core/heartbeat.js";
import { Session } from "../core/session.js";
import type { Connect, Transport } from "../transports/base.js";
import { page, randomId } from "../transports/page.js";
import { Bus, type BusOptions } from "./bus.js";
import { call, Listeners } from "./listeners.js";
import type { SessionRunner } from "./runner.js";

export type Status = "connecting" | "live" | "reconnecting" | "closed";

// All times are in milliseconds.
const FIRST_DELAY = 100;
const MAX_DELAY = 2_000;
const TICK = 2_000;
/** The time for an answer while the browser reports no network. The report may be wrong: the server may be local. */
const OFFLINE_PATIENCE = 1_500;
/** A connection that lasted this long was a good one: the delays begin anew. */
const STABLE = 10_000;
/** How long a connection outlives its last user: a widget that is drawn again returns immediately. */
const LINGER = 1_000;

export class Connection implements SessionRunner {
  readonly session: Session;
  /** The reason why the connection is closed; null while it is not. */
  error: EbusError | null = null;
  readonly #connect: Connect;
  readonly #listeners = new Listeners<[Status]>();
  readonly #errorListeners = new Listeners<[EbusError]>();
  readonly #onEnd: () => void;
  readonly #life = new AbortController();
  readonly #ticker: ReturnType<typeof setInterval>;
  #status: Status = "connecting";
  #transport: Transport | null = null;
  #up = false;
  #dialedAt = 0;
  /** The number of the present attempt; events of earlier ones are ignored. */
  #dial = 0;
  /** The number of attempts since the last connection that lasted. */
  #attempts = 0;
  #welcomedAt = Infinity;
  /** The bus of the last error that was on the console. */
  #lastReported: unknown = null;
  /** For the writes that are held. */
  #held: ReturnType<typeof setTimeout> | null = null;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #flushing = false;
  #users = 0;
  #linger: ReturnType<typeof setTimeout> | null = null;

  /**
   * @param onEnd - Called once, when the connection is closed for good.
   */
  constructor(connect: Connect, onEnd: () => void = () => undefined) {
    this.#connect = connect;
    this.#onEnd = onEnd;
    this.session = new Session(randomId(), "ebus-jupyter js");
    this.#ticker = setInterval(() => this.#tick(), TICK);
    const { signal } = this.#life;
    page.addEventListener?.("online", this.#wake, { signal });
    page.addEventListener?.("offline", this.#wake, { signal });
    page.document?.addEventListener("visibilitychange", this.#wake, { signal });
    this.#redial();
  }

  get status(): Status {
    return this.#status;
  }

  onStatus(listener: (status: Status) => void, signal?: AbortSignal): () => void {
    return this.#listeners.add(listener, signal);
  }

  onError(listener: (error: EbusError) => void, signal?: AbortSignal): () => void {
    return this.#errorListeners.add(listener, signal);
  }

  now(): number {
    return performance.now();
  }

  report(error: EbusError): void {
    const { bus = error.message } = error.details;
    // Of many in a row, one is enough for the console.
    if (bus !== this.#lastReported) console.warn(`[ebus] ${error.message}`);
    this.#lastReported = bus;
    this.#errorListeners.emit(error);
  }

  /**
   * Keeps the connection open.
   *
   * @returns A function that releases it.
   */
  retain(): () => void {
    this.#users += 1;
    if (this.#linger) clearTimeout(this.#linger);
    this.#linger = null;
    let retained = true;
    return () => {
      if (!retained) return;
      retained = false;
      this.#users -= 1;
      if (this.#users > 0 || this.error) return;
      this.#linger = setTimeout(() => this.close(new Closed("", { reason: "unused" })), LINGER);
    };
  }

  /** Opens a bus. On a page with several copies of this module, the objects of one connection all come from one copy. */
  bus<In, Out>(name: string | null, options: BusOptions): Bus<In, Out> {
    return new Bus<In, Out>(this, name, options);
  }

  readonly flush = (): void => {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      if (!this.#up) return;
      for (const message of this.session.dataToSend(this.now())) this.#transport?.send(message);
      const wait = this.session.wait(this.now());
      if (wait === null) return;
      this.#held ??= setTimeout(() => {
        this.#held = null;
        this.flush();
      }, wait + 1);
    });
  };

  dispatch(events: readonly SessionEvent[]): void {
    for (const event of events) this.#dispatch(event);
    this.flush();
  }

  /** Closes the connection for good. Everything that waits gets `error`. */
  close(error: EbusError): void {
    if (this.error) return;
    this.error = error;
    clearInterval(this.#ticker);
    if (this.#retry) clearTimeout(this.#retry);
    if (this.#held) clearTimeout(this.#held);
    this.#life.abort();
    this.#hangUp();
    this.#onEnd();
    this.dispatch(this.session.close(error));
    this.#setStatus("closed");
  }

  #dispatch(event: SessionEvent): void {
    switch (event.type) {
      case "welcomed":
        this.#welcomedAt = this.now();
        return this.#setStatus("live");
      case "bus_opened":
        return call(() => event.handle.listener?.opened());
      case "bus_closed":
        return call(() => event.handle.listener?.closed(event.error));
      case "messages_arrived":
        return each(event.channel.handles, (handle) => handle.listener?.messagesArrived());
      case "presence_changed":
        return each(event.channel.handles, (handle) => handle.listener?.presenceChanged());
      case "write_settled":
        return call(() => event.write.done?.(event.error, event.offset));
      case "request_settled":
        return call(() => event.request.done?.(event.error, event.value));
      case "error_reported":
        return this.report(event.error);
      case "connection_ended":
        return event.reconnect ? this.#lost(null) : this.close(event.error);
    }
  }

  #redial(): void {
    this.#retry = null;
    this.#dialedAt = this.now();
    const dial = (this.#dial += 1);
    const current = () => this.#dial === dial && !this.error;
    try {
      this.#transport = this.#connect({
        opened: () => {
          if (!current()) return;
          this.#up = true;
          this.session.connectionMade(this.now());
          this.flush();
        },
        message: (bytes) => {
          if (current()) this.dispatch(this.session.receiveData(bytes, this.now()));
        },
        closed: (error) => {
          if (current()) this.#lost(error);
        },
      });
    } catch (error) {
      if (error instanceof EbusError && error.temporary) this.#lost(null);
      else this.close(error instanceof EbusError ? error : new ConnectionLost(String(error)));
    }
  }

  #lost(error: EbusError | null): void {
    this.#hangUp();
    this.dispatch(this.session.connectionLost());
    if (error && !error.temporary) return this.close(error);
    this.#setStatus(this.#status === "connecting" ? "connecting" : "reconnecting");
    if (this.now() - this.#welcomedAt > STABLE) this.#attempts = 0;
    this.#welcomedAt = Infinity;
    const longest = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempts);
    this.#attempts += 1;
    this.#retry ??= setTimeout(() => this.#redial(), Math.random() * longest);
  }

  #hangUp(): void {
    this.#dial += 1;
    this.#up = false;
    this.#transport?.close();
    this.#transport = null;
  }

  #tick(): void {
    const now = this.now();
    const patience = page.navigator?.onLine === false ? OFFLINE_PATIENCE : PATIENCE;
    const alive = this.#up ? this.session.tick(now, patience) : this.#retry !== null || now - this.#dialedAt < PATIENCE;
    if (alive) this.flush();
    else this.#lost(null);
  }

  // The network is gone or back, or the page is visible again: do not wait, and do not trust a socket that may have died.
  #wake = (): void => {
    if (this.error || page.document?.visibilityState === "hidden") return;
    if (this.#retry) {
      clearTimeout(this.#retry);
      this.#redial();
    } else if (this.#up) {
      this.session.ping(this.now());
      this.flush();
    }
  };

  #setStatus(status: Status): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#listeners.emit(status);
  }
}

/** Calls foreign code for each handle, over a copy: the code may open and close handles. */
function each(handles: Iterable<ChannelHandle>, code: (handle: ChannelHandle) => void): void {
  for (const handle of [...handles]) call(() => code(handle));
}
