/**
 * Carries a `Link` out: one transport at a time, the timers, and the word passed on to whoever waits.
 *
 * What is said in one turn of the event loop travels in one message. A connection that ends is made again after a random
 * wait that grows to `SLOWEST` (full jitter, so that a class of pages does not come back all at once), and at once when
 * the browser is online again or the page is looked at. A browser that goes offline has the connection looked at.
 * `status` says where it stands: "connecting", "live", "reconnecting", or "closed" (then `error` says why).
 *
 * A page shares one connection: it is held by those who `retain` it, and closes a moment after the last let go.
 */
import { Bus, type BusOptions } from "./bus.js";
import type { OpenParams, Port } from "./channel.js";
import { Closed, ConnectionLost, EbusError } from "./errors.js";
import { Link, type LinkEvent } from "./link.js";
import { PATIENCE } from "./pulse.js";
import type { Connect, Transport } from "./transport.js";
import { call, Listeners, page } from "./util.js";

export type Status = "connecting" | "live" | "reconnecting" | "closed";

const FASTEST = 100;
const SLOWEST = 10_000;
const TICK = 2_000;
/** How long an answer may take where the browser says that there is no network. It may be wrong: the server may be here. */
const OFFLINE_PATIENCE = 1_500;
/** How long a connection outlives its last user: a widget that is drawn again comes back at once. */
const LINGER = 1_000;

export class Connection {
  readonly link: Link;
  /** Why it is closed, once it is. */
  error: EbusError | null = null;
  readonly #connect: Connect;
  readonly #listeners = new Listeners<[Status]>();
  readonly #onEnd: () => void;
  readonly #ticker: ReturnType<typeof setInterval>;
  #status: Status = "connecting";
  #transport: Transport | null = null;
  #up = false;
  #dialed = 0;
  /** Which dial is the present one: what an earlier one still reports is not heard. */
  #dial = 0;
  #attempts = 0;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #flushing = false;
  #users = 0;
  #linger: ReturnType<typeof setTimeout> | null = null;

  /** `onEnd` is called once, when the connection is closed for good. */
  constructor(connect: Connect, onEnd: () => void = () => undefined, client = "ebus-jupyter js") {
    this.#connect = connect;
    this.#onEnd = onEnd;
    this.link = new Link(instanceId(), client);
    this.#ticker = setInterval(() => this.#tick(), TICK);
    page.addEventListener?.("online", this.#wake);
    page.addEventListener?.("offline", this.#wake);
    page.document?.addEventListener("visibilitychange", this.#wake);
    this.#redial();
  }

  get status(): Status {
    return this.#status;
  }

  onStatus(listener: (status: Status) => void, signal?: AbortSignal): () => void {
    return this.#listeners.add(listener, signal);
  }

  /** Hold the connection open; returns how to let go of it. */
  retain(): () => void {
    this.#users += 1;
    if (this.#linger) clearTimeout(this.#linger);
    this.#linger = null;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#users -= 1;
      if (this.#users > 0 || this.error) return;
      this.#linger = setTimeout(() => this.close(new Closed("nobody on this page uses the connection.", { reason: "unused" })), LINGER);
    };
  }

  /** Open a bus. It is made here, so that a page that holds this module twice has all of one connection from one of them. */
  bus<T>(name: string | null, options: BusOptions): Bus<T> {
    return new Bus<T>(this, name, options);
  }

  /** @internal */
  open(params: OpenParams): Port {
    const port = this.link.open(params);
    this.flush();
    return port;
  }

  /** Send what there is to say, together with all that is said in this turn. */
  flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      if (this.#up) for (const message of this.link.take()) this.#transport?.send(message);
    });
  }

  /** Pass on what the link says has happened. */
  perform(events: readonly LinkEvent[]): void {
    for (const event of events) this.#happened(event);
    this.flush();
  }

  /** End for good: everything that waits is told `error`. */
  close(error: EbusError): void {
    if (this.error) return;
    this.error = error;
    clearInterval(this.#ticker);
    if (this.#retry) clearTimeout(this.#retry);
    page.removeEventListener?.("online", this.#wake);
    page.removeEventListener?.("offline", this.#wake);
    page.document?.removeEventListener("visibilitychange", this.#wake);
    this.#hangUp();
    this.#onEnd();
    this.perform(this.link.end(error));
    this.#setStatus("closed");
  }

  #happened(event: LinkEvent): void {
    switch (event.type) {
      case "live":
        this.#attempts = 0;
        return this.#setStatus("live");
      case "opened":
        return call(() => event.port.listener?.opened());
      case "closed":
        return call(() => event.port.listener?.closed(event.error));
      case "readable":
      case "presence":
        for (const port of [...event.channel.ports]) call(() => port.listener?.[event.type]());
        return;
      case "settled":
        return call(() => event.request.done?.(event.error, event.value as never));
      case "trouble":
        return console.warn(`[ebus] ${event.error.message}`);
      case "bye":
        return event.again ? this.#lost(null) : this.close(event.error);
    }
  }

  #redial(): void {
    this.#retry = null;
    this.#dialed = Date.now();
    const dial = (this.#dial += 1);
    const current = () => this.#dial === dial && !this.error;
    try {
      this.#transport = this.#connect({
        opened: () => {
          if (!current()) return;
          this.#up = true;
          this.link.opened(Date.now());
          this.flush();
        },
        message: (bytes) => {
          if (current()) this.perform(this.link.receive(bytes, Date.now()));
        },
        closed: (error) => {
          if (current()) this.#lost(error);
        },
      });
    } catch (error) {
      const why = error instanceof EbusError ? error : new ConnectionLost(`no connection can be made: ${String(error)}`);
      this.close(why);
    }
  }

  #lost(error: EbusError | null): void {
    this.#hangUp();
    this.perform(this.link.lost());
    if (error && !error.temporary) return this.close(error);
    this.#setStatus(this.#status === "connecting" ? "connecting" : "reconnecting");
    const longest = Math.min(SLOWEST, FASTEST * 2 ** this.#attempts);
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
    const now = Date.now();
    const patience = page.navigator?.onLine === false ? OFFLINE_PATIENCE : PATIENCE;
    const inTime = this.#up ? this.link.tick(now, patience) : this.#retry !== null || now - this.#dialed < PATIENCE;
    if (inTime) this.flush();
    else this.#lost(null);
  }

  // The network has gone or is back, or someone looks: don't wait, and don't trust a socket that may have died meanwhile.
  #wake = (): void => {
    if (this.error || page.document?.visibilityState === "hidden") return;
    if (this.#retry) {
      clearTimeout(this.#retry);
      this.#redial();
    } else if (this.#up) {
      this.link.probe(Date.now());
      this.flush();
    }
  };

  #setStatus(status: Status): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#listeners.emit(status);
  }
}

function instanceId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
