/**
 * `connect()`, and what it returns: a `Client`, one user of the page's connection.
 *
 * A page has one connection to each server, however many widgets it shows and however often this module was loaded (each
 * anywidget model brings its own): it is held on `globalThis`, counted, and closed a moment after its last user let go, by
 * `close()` or by the abort of its `signal`.
 */
import { whereabouts } from "./address.js";
import type { Bus, BusOptions } from "./bus.js";
import { Connection, type Status } from "./connection.js";
import type { EbusError } from "./errors.js";
import type { Participant } from "./frames.js";
import { State } from "./state.js";
import { orElse, socketUrl, webSocket, type Connect } from "./transport.js";
import { onAbort } from "./util.js";

export interface ConnectOptions {
  /** Jupyter's token, where no cookie says who this is. It travels in the URL: a browser's WebSocket takes no header. */
  token?: string | undefined;
  /** Ends this client, and the buses that it opened. */
  signal?: AbortSignal | undefined;
  /** Carries the frames instead of a WebSocket to `url`. Such a connection is not shared. */
  transport?: Connect | undefined;
  /** A way to the broker through a kernel: where the page belongs to no server, or can't reach it, or (`only`) always. */
  kernel?: { readonly name: string; readonly connect: Connect; readonly only: boolean } | undefined;
}

/** Where every copy of this module on the page finds the page's connections. */
const SHARED: unique symbol = Symbol.for("ebus.v1");

/**
 * Connect to the server of this page, or to the one at `url` (`https://…/` or `wss://…/ebus/ws`). Returns at once; the
 * connection is made, and kept, in the background. Throws `ConnectionLost` where the page belongs to no server.
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

function shared(where: string, dial: Connect): Connection {
  const page = globalThis as { [SHARED]?: Map<string, Connection> | undefined };
  const connections = (page[SHARED] ??= new Map<string, Connection>());
  let connection = connections.get(where);
  if (!connection) {
    connection = new Connection(dial, () => connections.delete(where));
    if (!connection.error) connections.set(where, connection);
  }
  return connection;
}

/** One user of a connection. What it opened closes with it. */
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

  /** "connecting", "live", "reconnecting", or "closed" (then `error` says why). */
  get status(): Status {
    return this.#life.signal.aborted ? "closed" : this.#connection.status;
  }

  get error(): EbusError | null {
    return this.#connection.error;
  }

  /** Who this page is to the broker; null until it has said so. */
  get you(): Participant | null {
    return this.#connection.link.you;
  }

  /** Call `listener` whenever `status` changes. Returns how to stop. */
  onStatus(listener: (status: Status) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    const off = this.#connection.onStatus(listener, signal);
    onAbort(this.#life.signal, off);
    return off;
  }

  /**
   * Open a bus, or make it. It is there at once and opens in the background. `name`: its name, or a bus's URI; none: a
   * fresh unnamed bus. What is left out of `options` is taken from what exists.
   */
  bus<T = unknown>(name: string | null = null, options: BusOptions = {}): Bus<T> {
    let given = options;
    if (name?.startsWith("ebus:")) {
      const { name: called, ...where } = whereabouts(name);
      name = called;
      given = { ...options, ...where };
    }
    const bus = this.#connection.bus<T>(name, given);
    const forget = onAbort(this.#life.signal, () => bus.close());
    void bus.closed.then(forget);
    return bus;
  }

  /** Open a shared state: a Map that everyone has the same of. */
  state<V = unknown>(name: string | null = null, options: BusOptions = {}): State<V> {
    return new State<V>(this.bus<V>(name, { retain: "keys", ...options }));
  }

  /** The buses within reach. */
  buses(): Promise<readonly Readonly<Record<string, unknown>>[]> {
    return new Promise((resolve, reject) => {
      this.#connection.link.list().done = (error, found) => (error ? reject(error) : resolve(found ?? []));
      this.#connection.flush();
    });
  }

  /** End this client: its buses close, and the connection with its last user. */
  close(): void {
    this.#life.abort();
    this.#release();
  }
}
