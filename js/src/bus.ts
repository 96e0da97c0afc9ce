/**
 * A bus, as a page holds it. It is there at once and opens in the background: what is written meanwhile is sent when it is
 * open, streams begin when it is. `ready` says when that is, or why it never will be.
 *
 * A write is accepted (`write` resolves with its offset) or refused (it rejects with the named error), once; while the
 * broker can't be reached it waits. Everyone hears it, this page too, in the same order. A write that rejects and that
 * nobody looked at shows up in the browser's console, as every such promise does.
 */
import type { Port, PortListener } from "./channel.js";
import type { Connection } from "./connection.js";
import { Closed, Lagged, type EbusError } from "./errors.js";
import { encodeValue, type Message, type Page, type Spec, type WriteOptions } from "./frames.js";
import { Presence } from "./presence.js";
import { Reader, type Pages, type Since } from "./reader.js";
import { Stream } from "./stream.js";
import { call, deferred, onAbort } from "./util.js";

export interface BusOptions extends Spec {
  /** "server" (default), "user", "kernel", "hub" or "hub:GROUP". */
  scope?: string | undefined;
  /** Whose scope it is, where that is not this page's own (it needs `cap` then). */
  owner?: string | undefined;
  /** The capability that the maker of a kernel's bus, or of an unnamed one, hands out. */
  cap?: string | undefined;
  /** False: join only what exists. */
  create?: boolean | undefined;
  /** Closes the bus on this page. */
  signal?: AbortSignal | undefined;
  /** Send writes in batches: when so many wait … */
  flushSize?: number | undefined;
  /** … or when the first of them has waited so long (milliseconds). Steady fast writes don't put it off. */
  flushInterval?: number | undefined;
}

export interface StreamOptions {
  since?: Since;
  signal?: AbortSignal | undefined;
}

export interface ListenOptions extends StreamOptions {
  /** Is told what was missed (`Lagged`), and why nothing more will come. Default: the console. */
  onError?: ((error: EbusError) => void) | undefined;
}

export class Bus<T = unknown> {
  /** Resolves when the bus is open; rejects with the reason why it can't be. */
  readonly ready: Promise<void>;
  /** Resolves with the reason when the bus is closed, by whomever. */
  readonly closed: Promise<EbusError>;
  readonly presence: Presence;
  readonly #connection: Connection;
  readonly #port: Port;
  readonly #options: BusOptions;
  readonly #readers = new Set<{ wake: () => void; end: () => void }>();
  readonly #unsettled = new Set<Promise<unknown>>();
  readonly #opened = deferred<undefined>();
  readonly #ended = deferred<EbusError>();
  #forget: () => void = () => undefined;
  #held = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @internal */
  constructor(connection: Connection, name: string | null, options: BusOptions) {
    const { scope = "server", owner = "", cap = "", create = true, signal, flushSize, flushInterval, ...given } = options;
    const spec = Object.fromEntries(Object.entries(given).filter(([, value]: [string, unknown]) => value !== undefined));
    this.#connection = connection;
    this.#options = { flushSize, flushInterval };
    this.#port = connection.open({ scope, name, spec, owner, cap, create });
    this.presence = new Presence(connection, this.#port);
    this.#port.listener = this.#listen();
    this.ready = this.#opened.promise;
    this.closed = this.#ended.promise;
    this.ready.catch(() => undefined); // it shows wherever the bus is used
    this.#forget = onAbort(signal, () => this.close());
  }

  /** Its name; for an unnamed bus, the one that the broker gave, once it is open. */
  get name(): string {
    return this.#port.params.name ?? this.#port.channel?.address.split("/").at(-1) ?? "";
  }

  /** Its URI, such as `ebus:server/votes`, with its capability where it has one; "" until it is open. */
  get uri(): string {
    const channel = this.#port.channel;
    return channel ? channel.address + (channel.cap && `#${channel.cap}`) : "";
  }

  /** What the bus is, as its maker said; null until it is open. */
  get spec(): Spec | null {
    return this.#port.channel?.spec ?? null;
  }

  /** Why it is closed; null while it is not. */
  get error(): EbusError | null {
    return this.#port.error;
  }

  /** Write a value. Resolves with its offset; rejects with the error that names why it was refused. */
  write(value: T, how: WriteOptions = {}): Promise<number> {
    const { flushSize, flushInterval } = this.#options;
    const hold = flushSize !== undefined || flushInterval !== undefined;
    const settled = new Promise<number>((resolve, reject) => {
      const bytes = encodeValue(value, this.name);
      const write = this.#connection.link.publish(this.#port, bytes, { ...how }, hold);
      write.done = (error, offset) => (error ? reject(error) : resolve(offset ?? 0));
      this.#held += 1;
    });
    const quiet: Promise<unknown> = settled.then(
      () => this.#unsettled.delete(quiet),
      () => this.#unsettled.delete(quiet),
    );
    this.#unsettled.add(quiet);
    if (!hold) this.#connection.flush();
    else if (this.#held >= (flushSize ?? Infinity)) this.#release();
    else this.#timer ??= setTimeout(() => this.#release(), flushInterval ?? 0);
    return settled;
  }

  /** Send what waits; resolves when everything written here so far has its answer, whichever. */
  async flush(): Promise<void> {
    this.#release();
    await Promise.all(this.#unsettled);
  }

  /** The values written from `since` on (default: from now on). */
  stream({ since, signal }: StreamOptions = {}): Stream<T> {
    return this.#stream((message) => message.value as T, since, signal);
  }

  /** The same with everything that is known of each: offset, time, sender. */
  messages({ since, signal }: StreamOptions = {}): Stream<Message<T>> {
    return this.#stream((message) => message as Message<T>, since, signal);
  }

  /** Call `listener` with each value, in order. Returns how to stop. */
  on(listener: (value: T) => void, options: ListenOptions = {}): () => void {
    return this.onMessage((message) => listener(message.value), options);
  }

  /** Call `listener` with each message, in order. Returns how to stop. */
  onMessage(listener: (message: Message<T>) => void, options: ListenOptions = {}): () => void {
    const { since, signal, onError = report } = options;
    const life = new AbortController();
    let draining = false;
    const drain = () => {
      if (draining) return;
      draining = true;
      while (!life.signal.aborted) {
        try {
          const message = reader.read();
          if (!message) break;
          call(() => listener(message as Message<T>));
        } catch (error) {
          if (!(error instanceof Lagged)) stop();
          call(() => onError(error as EbusError));
        }
      }
      draining = false;
    };
    const stop = () => life.abort();
    const [reader, release] = this.subscribe(since, drain, stop);
    onAbort(life.signal, release);
    onAbort(life.signal, onAbort(signal, stop));
    // Not before the caller has what `on` returns.
    queueMicrotask(drain);
    return stop;
  }

  /** The last `n` values that are kept, oldest first. */
  async history(n = 10): Promise<T[]> {
    const found: T[] = [];
    let after = n === Infinity ? 0 : -Math.floor(n);
    if (n <= 0) return found;
    for (;;) {
      const page = await new Promise<Page>((resolve, reject) => {
        this.#pages.fetch(this.#port, after, 0, (error, answer) => (answer ? resolve(answer) : reject(error ?? new Closed())));
      });
      for (const { value } of page.messages) found.push(value as T);
      if (!page.more || page.through <= after) return found;
      after = page.through;
    }
  }

  /** Delete the bus and its log, for everyone. */
  delete(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#connection.link.remove(this.#port).done = (error) => (error ? reject(error) : resolve());
      this.#connection.flush();
    });
  }

  /** Close it on this page: its streams end. What was written is still sent. */
  close(): void {
    this.#forget();
    this.#release();
    for (const { end } of [...this.#readers]) end();
    this.#connection.perform(this.#connection.link.close(this.#port));
    this.#end(this.#port.error ?? new Closed());
  }

  /**
   * A reader of this bus (a clone of `twin`), and how to let go of it. `wake` is called when it may have something to read,
   * `end` when the bus is closed on this page.
   * @internal
   */
  subscribe(since: Since, wake: () => void, end: () => void, twin?: Reader): readonly [Reader, () => void] {
    const { link } = this.#connection;
    link.read(this.#port);
    const reader = twin ? twin.clone(wake) : new Reader(this.#port, since, this.#pages, wake);
    const place = { wake, end };
    this.#readers.add(place);
    this.#connection.flush();
    const release = () => {
      if (!this.#readers.delete(place)) return;
      link.unread(this.#port);
      this.#connection.flush();
    };
    return [reader, release];
  }

  #stream<V>(make: (message: Message) => V, since: Since, signal: AbortSignal | undefined): Stream<V> {
    return new Stream((wake, end, twin) => this.subscribe(since, wake, end, twin), make, signal);
  }

  readonly #pages: Pages = {
    fetch: (port, after, until, done) => {
      const question = this.#connection.link.fetch(port, after, until);
      question.done = done;
      this.#connection.flush();
      return question;
    },
  };

  #release(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#held = 0;
    this.#connection.link.release(this.#port);
    this.#connection.flush();
  }

  #end(error: EbusError): void {
    this.#opened.reject(error);
    this.#ended.resolve(error);
  }

  #listen(): PortListener {
    const wake = () => {
      for (const reader of [...this.#readers]) call(reader.wake);
    };
    return {
      opened: () => {
        this.#opened.resolve(undefined);
        wake();
      },
      closed: (error) => {
        this.#end(error);
        wake();
      },
      readable: wake,
      presence: () => this.presence.changed(),
    };
  }
}

function report(error: EbusError): void {
  if (error instanceof Lagged) console.warn(`[ebus] ${error.message}`);
  else console.error(`[ebus] ${error.message}`);
}
