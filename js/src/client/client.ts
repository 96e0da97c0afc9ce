/**
 * `connect()`, and the `Client` that it returns: one user of the page's connection.
 *
 * A page has one connection to each server, however many widgets it shows and however often it has loaded this module (each
 * anywidget brings its own copy). The connections are on `globalThis`. A connection counts its clients, and closes shortly
 * after the last one was closed, by `close()` or by its `signal`.
 */
import { onAbort } from "../core/abort.js";
import { openTarget } from "../core/address.js";
import type { EbusError } from "../core/errors.js";
import type { Participant } from "../core/frames.js";
import type { Connect } from "../transports/base.js";
import { orElse } from "../transports/fallback.js";
import { socketUrl, webSocket } from "../transports/websocket.js";
import type { Bus, BusOptions } from "./bus.js";
import { Connection, type Status } from "./connection.js";
import { State } from "./state.js";

export interface ConnectOptions {
  /** Jupyter's token, if no cookie authenticates the page. It is part of the URL: a browser's WebSocket has no headers. */
  token?: string | undefined;
  /** Closes the client, and the buses that it opened. */
  signal?: AbortSignal | undefined;
  /** Carries the frames instead of a WebSocket. Such a connection is not shared. */
  transport?: Connect | undefined;
  /** A way through a kernel, for pages that belong to no server or cannot reach it; `only`: always use it. */
  kernel?: { readonly name: string; readonly connect: Connect; readonly only: boolean } | undefined;
}

/** Where all copies of this module on a page find the page's connections. The version changes with what they share. */
const SHARED: unique symbol = Symbol.for("ebus.v2");

/**
 * Connects to a Jupyter server. Returns at once; the connection is made, and kept, in the background.
 *
 * @param url - The server (`https://…/`) or its socket (`wss://…/ebus/ws`). Default: the server of this page.
 * @throws ConnectionLost if there is no `url` and the page belongs to no server.
 */
export function connect(url?: string | URL, { token, signal, transport, kernel }: ConnectOptions = {}): Client {
  if (transport) return new Client(new Connection(transport), signal);
  let target = "";
  try {
    if (!kernel?.only) target = socketUrl(url, token);
  } catch (error) {
    if (!kernel) throw error;
  }
  if (!target && kernel) return new Client(shared(`kernel:${kernel.name}`, kernel.connect), signal);
  return new Client(shared(target, kernel ? orElse(webSocket(target), kernel.connect) : webSocket(target)), signal);
}

function shared(target: string, dial: Connect): Connection {
  const page = globalThis as { [SHARED]?: Map<string, Connection> | undefined };
  const connections = (page[SHARED] ??= new Map<string, Connection>());
  let connection = connections.get(target);
  if (!connection) {
    connection = new Connection(dial, () => connections.delete(target));
    if (!connection.error) connections.set(target, connection);
  }
  return connection;
}

/** One user of a connection. Its buses close with it. */
export class Client {
  readonly #connection: Connection;
  readonly #release: () => void;
  readonly #life = new AbortController();

  /** @internal */
  constructor(connection: Connection, signal?: AbortSignal) {
    this.#connection = connection;
    this.#release = connection.retain();
    const forget = onAbort(signal, () => this.close());
    onAbort(this.#life.signal, forget);
  }

  /** "connecting", "live", "reconnecting", or "closed" (then `error` is the reason). */
  get status(): Status {
    return this.#life.signal.aborted ? "closed" : this.#connection.status;
  }

  /** The reason why the connection is closed; null while it is not. */
  get error(): EbusError | null {
    return this.#connection.error;
  }

  /** This page, as the broker knows it; null until the first welcome. */
  get you(): Participant | null {
    return this.#connection.session.you;
  }

  /**
   * Calls `listener` after each change of `status`.
   *
   * @returns A function that removes the listener.
   */
  onStatus(listener: (status: Status) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    const off = this.#connection.onStatus(listener, signal);
    onAbort(this.#life.signal, off);
    return off;
  }

  /**
   * Opens a bus, or creates it. Returns at once; the bus opens in the background.
   *
   * `In` is the type of the written values, `Out` the type of the received ones, which differs if the bus has a filter that
   * returns another type.
   *
   * @param name - The name or the URI of the bus. Default: a new unnamed bus.
   * @param options - The specification. Fields that are left out are taken from the existing bus.
   * @throws InvalidName if `name` begins with `ebus:` and is not the URI of a bus.
   */
  bus<In = unknown, Out = In>(name: string | null = null, options: BusOptions = {}): Bus<In, Out> {
    let given = options;
    if (name?.startsWith("ebus:")) {
      const { name: path, ...target } = openTarget(name);
      name = path;
      given = { ...options, ...target };
    }
    const bus = this.#connection.bus<In, Out>(name, given);
    const forget = onAbort(this.#life.signal, () => bus.close());
    void bus.closed.then(forget);
    return bus;
  }

  /** Opens a shared state: a map that is the same for all participants. Parameters as of `bus`. */
  state<V = unknown>(name: string | null = null, options: BusOptions = {}): State<V> {
    return new State<V>(this.bus<V>(name, { retain: "keys", ...options }));
  }

  /** Lists the buses that this page may open. */
  buses(): Promise<readonly Readonly<Record<string, unknown>>[]> {
    return new Promise((resolve, reject) => {
      this.#connection.session.listBuses().done = (error, found) => (error ? reject(error) : resolve(found ?? []));
      this.#connection.flush();
    });
  }

  /** Closes the client and its buses; the connection closes with its last client. */
  close(): void {
    this.#life.abort();
    this.#release();
  }
}
