/**
 * `connect()`, and the `Client` that it returns: one user of the page's connection.
 *
 * A page has one connection to each server, however many widgets it shows and however often it has loaded this module (each
 * anywidget brings its own copy). A connection counts its clients, and closes shortly after the last one was closed, by
 * `close()` or by its `signal`.
 *
 * The copies may be of different versions. They share functions on `globalThis` that make clients: all clients of one
 * connection, and all that comes from them, are of the copy that was first, and only their public names are used.
 */
import { onAbort } from "../core/abort.js";
import { openTarget } from "../core/address.js";
import { ConnectionLost, type EbusError } from "../core/errors.js";
import type { Participant } from "../core/frames.js";
import type { Connect, Way } from "../transports/base.js";
import { socketUrl, webSocket } from "../transports/websocket.js";
import type { Bus, BusOptions } from "./bus.js";
import { Connection, type Status } from "./connection.js";
import { Listeners } from "./listeners.js";
import { answer, type WaitOptions } from "./waiting.js";

export interface ConnectOptions {
  /** Jupyter's token, if no cookie authenticates the page. It is part of the URL: a browser's WebSocket has no headers. */
  token?: string | undefined;
  /** Closes the client, and the buses that it opened. */
  signal?: AbortSignal | undefined;
  /** Carries the frames instead of a WebSocket. Such a connection is not shared. */
  transport?: Connect | undefined;
  /** A way through a kernel, for pages that belong to no server or cannot reach it; `only`: always use it. */
  kernel?: { readonly name: string; readonly way: Way; readonly only: boolean } | undefined;
}

/** Makes a client of a connection that the page has. */
type Port = (options: ConnectOptions) => Client;

/** Where all copies of this module on a page find the page's connections. The version changes with `Port`. */
const SHARED: unique symbol = Symbol.for("ebus.page.v3");

/**
 * Connects to a Jupyter server. Returns at once; the connection is made, and kept, in the background.
 *
 * @param url - The server (`https://…/`) or its socket (`wss://…/ebus/ws`). Default: the server of this page.
 * @throws ConnectionLost if there is no `url` and the page belongs to no server.
 */
export function connect(url?: string | URL, options: ConnectOptions = {}): Client {
  const { token, signal, transport, kernel } = options;
  if (transport) return new Client(new Connection(transport), signal);
  let target = "";
  try {
    if (!kernel?.only) target = socketUrl(url, token);
  } catch (error) {
    if (!kernel) throw error;
  }
  const page = globalThis as { [SHARED]?: Map<string, Port> | undefined };
  const ports = (page[SHARED] ??= new Map<string, Port>());
  const key = target || `kernel:${kernel?.name ?? ""}`;
  const port = ports.get(key) ?? openPort(ports, key, target);
  return port(options);
}

/** Opens a connection that the page does not have yet: to the server at `target`, or ("") only through a kernel. */
function openPort(ports: Map<string, Port>, key: string, target: string): Port {
  /** The ways through kernels, of the clients that are there. The one for a connection is chosen when it is dialled. */
  const ways = new Set<Way>();
  const first = target ? webSocket(target) : null;
  const dial: Connect = (listener) => {
    const connectBy = [...ways].at(-1)?.(first) ?? first;
    if (!connectBy) throw new ConnectionLost("no widget is left.");
    return connectBy(listener);
  };
  let connection: Connection | undefined;
  const port: Port = ({ signal, kernel }) => {
    if (kernel) ways.add(kernel.way);
    connection ??= new Connection(dial, () => ports.delete(key));
    if (!connection.error) ports.set(key, port);
    return new Client(connection, signal, () => kernel && ways.delete(kernel.way));
  };
  return port;
}

/** One user of a connection. Its buses close with it. */
export class Client {
  readonly #connection: Connection;
  readonly #release: () => void;
  readonly #life = new AbortController();
  readonly #listeners = new Listeners<[Status]>();

  /** @internal */
  constructor(connection: Connection, signal?: AbortSignal, onEnd: () => unknown = () => undefined) {
    this.#connection = connection;
    this.#release = connection.retain();
    const life = this.#life.signal;
    connection.onStatus((status) => this.#listeners.emit(status), life);
    onAbort(life, onEnd);
    onAbort(
      life,
      onAbort(signal, () => this.close()),
    );
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
    return this.#listeners.add(listener, signal);
  }

  /**
   * Calls `listener` with each error that no call is there to throw: a message that cannot be decoded here, and was skipped.
   *
   * @returns A function that removes the listener.
   */
  onError(listener: (error: EbusError) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    const off = this.#connection.onError(listener, this.#life.signal);
    const forget = onAbort(signal, off);
    return () => {
      forget();
      off();
    };
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
    if (typeof name === "string" && name.startsWith("ebus:")) {
      const { name: path, ...target } = openTarget(name);
      name = path;
      given = { ...options, ...target };
    }
    const bus = this.#connection.bus<In, Out>(name, given);
    const forget = onAbort(this.#life.signal, () => bus.close());
    void bus.closed.then(forget);
    return bus;
  }

  /** Lists the buses that this page may open. */
  buses(options: WaitOptions = {}): Promise<readonly Readonly<Record<string, unknown>>[]> {
    return answer(this.#connection, options, () => this.#connection.session.listBuses());
  }

  /** Closes the client and its buses; the connection closes with its last client. */
  close(): void {
    if (this.#life.signal.aborted) return;
    const { status } = this;
    this.#life.abort();
    this.#release();
    if (status !== "closed") this.#listeners.emit("closed");
  }
}
