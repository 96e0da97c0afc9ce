/**
 * Who is on a bus: people's pages, kernels, the server. What one says of oneself is said again after every reconnect;
 * one that loses its connection is "away" for a while before it has left.
 */
import type { Connection } from "./connection.js";
import type { Port } from "./channel.js";
import type { Seat } from "./frames.js";
import { Listeners } from "./util.js";

export class Presence {
  readonly #connection: Connection;
  readonly #port: Port;
  readonly #listeners = new Listeners<[readonly Seat[]]>();

  /** @internal */
  constructor(connection: Connection, port: Port) {
    this.#connection = connection;
    this.#port = port;
  }

  /** Say something of yourself on this bus, such as `{typing: true}`; null withdraws it. */
  set(state: unknown): void {
    this.#connection.link.say(this.#port, state ?? null);
    this.#connection.flush();
  }

  /** Who is here, and who is away. Asking for it begins being told: at first it is empty, until `on` says otherwise. */
  get participants(): readonly Seat[] {
    this.#watch();
    return [...(this.#port.channel?.seats.values() ?? [])];
  }

  /** Call `listener` with everyone who is on the bus, whenever that has changed. Returns how to stop. */
  on(listener: (participants: readonly Seat[]) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    const off = this.#listeners.add(listener, signal);
    const known = this.participants;
    if (known.length > 0) listener(known);
    return off;
  }

  /** @internal */
  changed(): void {
    this.#listeners.emit([...(this.#port.channel?.seats.values() ?? [])]);
  }

  #watch(): void {
    this.#connection.link.watch(this.#port);
    this.#connection.flush();
  }
}
