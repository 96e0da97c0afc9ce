/**
 * A bus, as a page uses it.
 *
 * A bus is usable at once and opens in the background: writes made meanwhile are sent when it is open, and streams begin
 * then. `ready` resolves when the bus is open, or rejects with the reason why it cannot be.
 *
 * A write is accepted (`write` resolves with its offset) or refused (`write` rejects with a named error), once. While the
 * broker cannot be reached, the write waits. All participants receive the message in the same order, this page included. A
 * refused write that nobody handles shows up in the browser's console, like any unhandled rejection.
 *
 * Writes may come faster than the broker takes them: the client sends them at the broker's rate, in order, and none is
 * refused or lost for it. What waits is bounded in bytes.
 */
import { onAbort } from "../core/abort.js";
import { nameOf } from "../core/address.js";
import { check } from "../core/check.js";
import type { ChannelHandle, HandleListener } from "../core/channel.js";
import { Closed, Lagged, type EbusError } from "../core/errors.js";
import { decodeValue, encodeValue, type Message, type Spec, type WriteOptions } from "../core/frames.js";
import { decode } from "../core/msgpack.js";
import { NOWHERE, type Position } from "../core/position.js";
import { Reader, type PageSource, type Since } from "../core/reader.js";
import { deferred } from "./deferred.js";
import { call } from "./listeners.js";
import { Presence } from "./presence.js";
import type { SessionRunner } from "./runner.js";
import { Stream } from "./stream.js";
import { Subscription } from "./subscription.js";
import { answer, type WaitOptions } from "./waiting.js";

/** How long writes wait that are to be sent together, where only their number was given, in milliseconds. */
const GATHER_TIME = 50;
/** How many writes are sent together at most, where only the time was given. */
const GATHER_WRITES = 1000;

/**
 * What a `State` needs of its bus. The two may be of different versions of this package: a page has one connection, and one
 * copy of the client runs it. So these names are fixed.
 */
export interface BusPort {
  encode(value: unknown): Uint8Array;
  /** Objects and arrays in the value are frozen. */
  decode(value: Uint8Array): unknown;
  write(value: Uint8Array, options: WriteOptions): Promise<number>;
  /** Begins to read at the start. */
  read(wake: () => void, end: () => void): Pick<Subscription, "read" | "caughtUp" | "errors" | "release">;
}

export interface BusOptions extends Spec {
  /** "server" (default), "user", "kernel", "hub" or "hub:GROUP". */
  scope?: string | undefined;
  /** The owner of the scope, if it is not this page's own; needs `cap`. */
  owner?: string | undefined;
  /** The capability, which the creator of a kernel bus or an unnamed bus hands out. */
  cap?: string | undefined;
  /** False: only join an existing bus. Default: true. */
  create?: boolean | undefined;
  /** Closes the bus on this page. */
  signal?: AbortSignal | undefined;
  /** Send writes in batches: when this many wait … */
  flushSize?: number | undefined;
  /** … or when the first of them has waited this long, in milliseconds. Further writes do not extend the time. */
  flushInterval?: number | undefined;
}

export interface StreamOptions {
  /** The position where the stream begins: see `Since`. Default: now. */
  since?: Since;
  /** Ends the stream. */
  signal?: AbortSignal | undefined;
}

export interface ListenOptions extends StreamOptions {
  /** Receives `Lagged` for missed messages, and the reason why no more messages will come. Default: the console. */
  onError?: ((error: EbusError) => void) | undefined;
}

/**
 * A bus of `In` values. `Out` is the type of the received values, which differs if the bus has a filter that returns
 * another type.
 */
export class Bus<In = unknown, Out = In> {
  /** Resolves when the bus is open; rejects with the reason why it cannot be. */
  readonly ready: Promise<void>;
  /** Resolves with the reason when the bus is closed, on this page or by others. */
  readonly closed: Promise<EbusError>;
  readonly presence: Presence;
  readonly #runner: SessionRunner;
  readonly #handle: ChannelHandle;
  readonly #options: BusOptions;
  readonly #subscriptions = new Set<Subscription>();
  readonly #unsettled = new Set<Promise<unknown>>();
  readonly #opened = deferred<undefined>();
  readonly #ended = deferred<EbusError>();
  #forget: () => void = () => undefined;
  /** The number of writes since the last flush. */
  #batched = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @internal */
  constructor(runner: SessionRunner, name: string | null, options: BusOptions) {
    const { scope = "server", owner = "", cap = "", create = true, signal, flushSize, flushInterval, ...given } = options;
    check([flushSize ?? 1, flushInterval ?? 1].every(Number.isFinite), "a wrong argument of bus()");
    this.#runner = runner;
    this.#options = { flushSize, flushInterval };
    this.#handle = runner.session.open({ scope, name, spec: given, owner, cap, create });
    runner.flush();
    this.presence = new Presence(runner, this.#handle);
    this.#handle.listener = this.#listener();
    this.ready = this.#opened.promise;
    this.closed = this.#ended.promise;
    this.ready.catch(() => undefined); // every use of the bus reports the reason
    this.#forget = onAbort(signal, () => this.close());
  }

  /** The name. An unnamed bus gets its name from the broker when it is open; until then it is "". */
  get name(): string {
    return this.#handle.params.name ?? nameOf(this.#handle.channel?.address ?? "");
  }

  /** The URI, such as `ebus:server/votes`, with the capability if there is one; "" until the bus is open. */
  get uri(): string {
    const channel = this.#handle.channel;
    return channel ? channel.address + (channel.cap && `#${channel.cap}`) : "";
  }

  /** The specification, as the creator gave it; null until the bus is open. */
  get spec(): Spec | null {
    return this.#handle.channel?.spec ?? null;
  }

  /**
   * Whose filter sees each write, and may change it: "user:NAME", whose kernel runs it, "server:NAME", or "" if there is none.
   * To insist on that, open the bus with `filter: null`.
   */
  get filteredBy(): string {
    const { filter, maker } = this.spec ?? {};
    return filter ? (filter === "@owner" ? `user:${maker}` : `server:${filter}`) : "";
  }

  /** The place that this client has reached, for `stream({since: position})` later, also on another page. */
  get position(): Position {
    return this.#handle.channel?.position ?? NOWHERE;
  }

  /** The reason why the bus is closed; null while it is not. */
  get error(): EbusError | null {
    return this.#handle.error;
  }

  /**
   * Writes a value. It is checked and encoded in this call: the program may go on changing it.
   *
   * @returns The offset of the message. The promise rejects with a named error if the write is refused, and with `TypeError`
   * if an option is wrong.
   */
  async write(value: In, options: WriteOptions = {}): Promise<number> {
    return this.#write(encodeValue(value, this.#handle.label), options);
  }

  /** @internal */
  get port(): BusPort {
    return {
      encode: (value) => encodeValue(value, this.#handle.label),
      decode: (value) => decode(value, true),
      write: (value, options) => this.#write(value, options),
      read: (wake, end) => this.#subscribe("start", wake, end),
    };
  }

  #write(value: Uint8Array, options: WriteOptions): Promise<number> {
    const { flushSize, flushInterval } = this.#options;
    const batch = flushSize !== undefined || flushInterval !== undefined;
    const runner = this.#runner;
    const settled = new Promise<number>((resolve, reject) => {
      const write = runner.session.publish(this.#handle, value, runner.now(), options, batch);
      write.done = (error, offset) => (error ? reject(error) : resolve(offset ?? 0));
      this.#batched += 1;
    });
    const quiet: Promise<unknown> = settled.then(
      () => this.#unsettled.delete(quiet),
      () => this.#unsettled.delete(quiet),
    );
    this.#unsettled.add(quiet);
    if (!batch) runner.flush();
    else if (this.#batched >= (flushSize ?? GATHER_WRITES)) this.#flushBatch();
    else this.#timer ??= setTimeout(() => this.#flushBatch(), flushInterval ?? GATHER_TIME);
    return settled;
  }

  /** Sends the batch. Resolves when all writes made here so far are accepted or refused. */
  async flush(): Promise<void> {
    this.#flushBatch();
    await Promise.all(this.#unsettled);
  }

  /** Returns a stream of the values. */
  stream(options: StreamOptions = {}): Stream<Out> {
    return this.#stream((message) => message.value as Out, options);
  }

  /** Returns a stream of the messages: the values with their offset, time and sender. */
  messages(options: StreamOptions = {}): Stream<Message<Out>> {
    return this.#stream((message) => message as Message<Out>, options);
  }

  /**
   * Calls `listener` with each value, in order.
   *
   * @returns A function that removes the listener.
   */
  on(listener: (value: Out) => unknown, options: ListenOptions = {}): () => void {
    return this.onMessage((message) => listener(message.value), options);
  }

  /**
   * Calls `listener` with each message, in order.
   *
   * @returns A function that removes the listener.
   */
  onMessage(listener: (message: Message<Out>) => unknown, options: ListenOptions = {}): () => void {
    const { since, signal, onError = report } = options;
    const life = new AbortController();
    let draining = false;
    const drain = () => {
      if (draining) return;
      draining = true;
      while (!life.signal.aborted) {
        try {
          const message = subscription.read();
          if (!message) break;
          call(() => listener(message as Message<Out>));
        } catch (error) {
          if (!(error instanceof Lagged)) stop();
          call(() => onError(error as EbusError));
        }
      }
      draining = false;
    };
    const stop = () => life.abort();
    const subscription = this.#subscribe(since, drain, stop);
    onAbort(life.signal, () => subscription.release());
    onAbort(life.signal, onAbort(signal, stop));
    // The caller gets the returned function before the listener is called.
    queueMicrotask(drain);
    return stop;
  }

  /** Returns the last `n` retained values, oldest first. Default: 10; `Infinity`: all. Values that cannot be read are left out. */
  async history(n = 10, options: WaitOptions = {}): Promise<Out[]> {
    check(n >= 0, "n is a number");
    const found: Out[] = [];
    let after = n === Infinity ? 0 : -Math.floor(n);
    if (n < 1) return found;
    for (;;) {
      const page = await answer(this.#runner, options, () => this.#runner.session.fetch(this.#handle, after));
      for (const delivery of page.messages) {
        try {
          found.push(decodeValue(delivery, this.#handle.label) as Out);
        } catch (error) {
          this.#runner.report(error as EbusError);
        }
      }
      if (!page.more || page.through <= after) return found;
      after = page.through;
    }
  }

  /** Deletes the bus and its log for all participants. */
  async delete(options: WaitOptions = {}): Promise<void> {
    await answer(this.#runner, options, () => this.#runner.session.delete(this.#handle));
  }

  /** Closes the bus on this page: its streams end, its writes are still sent. */
  close(): void {
    this.#forget();
    this.#flushBatch();
    for (const { end } of [...this.#subscriptions]) end();
    this.#runner.dispatch(this.#runner.session.leave(this.#handle, this.#runner.now()));
    this.#end(this.#handle.error ?? new Closed());
  }

  /** Begins to read, or clones `original`; `wake` and `end` as in `Subscription`. */
  #subscribe(since: Since, wake: () => void, end: () => void, original?: Subscription): Subscription {
    const reader = original ? original.reader.clone(wake) : new Reader(this.#handle, since, this.#pages, wake);
    return new Subscription(this.#runner, this.#handle, reader, this.#subscriptions, wake, end);
  }

  #stream<V>(make: (message: Message) => V, { since, signal }: StreamOptions): Stream<V> {
    return new Stream((wake, end, original) => this.#subscribe(since, wake, end, original), make, signal);
  }

  readonly #pages: PageSource = {
    fetch: (handle, after, until, done) => {
      this.#runner.session.fetch(handle, after, until).done = done;
      this.#runner.flush();
    },
  };

  #flushBatch(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#batched = 0;
    this.#runner.session.flush(this.#handle, this.#runner.now());
    this.#runner.flush();
  }

  #end(error: EbusError): void {
    this.#opened.reject(error);
    this.#ended.resolve(error);
  }

  #listener(): HandleListener {
    const wake = () => {
      for (const { wake } of [...this.#subscriptions]) call(wake);
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
      messagesArrived: wake,
      presenceChanged: () => this.presence.changed(),
    };
  }
}

function report(error: EbusError): void {
  if (error instanceof Lagged) console.warn(`[ebus] ${error.message}`);
  else console.error(`[ebus] ${error.message}`);
}
