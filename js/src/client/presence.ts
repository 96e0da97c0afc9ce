/**
 * The participants of a bus: people's pages, kernels, the server.
 *
 * A state that this page has set is sent again after every reconnect. A participant that loses its connection is "away" for
 * a while before it has left.
 */
import type { ChannelHandle } from "../core/channel.js";
import { encodeValue, type Seat } from "../core/frames.js";
import { call, Listeners } from "./listeners.js";
import type { SessionRunner } from "./runner.js";

export class Presence {
  readonly #runner: SessionRunner;
  readonly #handle: ChannelHandle;
  readonly #listeners = new Listeners<[readonly Seat[]]>();

  /** @internal */
  constructor(runner: SessionRunner, handle: ChannelHandle) {
    this.#runner = runner;
    this.#handle = handle;
  }

  /**
   * Sets this page's state on the bus, such as `{typing: true}`; null withdraws it. It ends with the bus on this page.
   *
   * @throws TypeMismatch if the state cannot be encoded.
   * @throws TooLarge if it exceeds the server's limit.
   */
  set(state: unknown): void {
    this.#runner.session.setPresence(this.#handle, state == null ? null : encodeValue(state, this.#handle.label));
    this.#runner.flush();
  }

  /** The participants, here or away. The first access requests them: until `on` reports them the list is empty. */
  get participants(): readonly Seat[] {
    this.#runner.session.watchPresence(this.#handle);
    this.#runner.flush();
    return this.#known();
  }

  /**
   * Calls `listener` with all participants, after each change of any of them.
   *
   * @returns A function that removes the listener.
   */
  on(listener: (participants: readonly Seat[]) => void, { signal }: { signal?: AbortSignal | undefined } = {}): () => void {
    const off = this.#listeners.add(listener, signal);
    const known = this.participants;
    if (known.length > 0) call(() => listener(known));
    return off;
  }

  /** @internal */
  changed(): void {
    this.#listeners.emit(this.#known());
  }

  #known(): readonly Seat[] {
    return [...(this.#handle.channel?.participants.values() ?? [])];
  }
}
