/**
 * The buses of a session: which of them are opening, open, or no longer used.
 *
 * A bus is opened once for each handle, and reopened once on each new connection. Then the registry resumes the bus: it
 * sends what the handles want, in the order subscription, presence, writes, requests. A bus without handles is left when
 * nothing of it waits for an answer.
 */
import { Channel, ChannelHandle, reopenParams, type OpenParams } from "./channel.js";
import type { EbusError } from "./errors.js";
import type { SessionEvent } from "./events.js";
import * as frames from "./frames.js";
import type { BrokerFrame } from "./frames.js";
import type { PendingRequests } from "./requests.js";

export class ChannelRegistry {
  readonly #out: Uint8Array[];
  readonly #pending: PendingRequests;
  readonly #opening = new Set<ChannelHandle>();
  readonly #channels = new Map<string, Channel>();
  readonly #numbers = new Map<number, Channel>();
  /** The channels that may have no use any more. */
  readonly #idle = new Set<Channel>();

  /** @param out - The session's outgoing frames. */
  constructor(out: Uint8Array[], pending: PendingRequests) {
    this.#out = out;
    this.#pending = pending;
  }

  /** Returns the bus that has `number` on this connection. */
  get(number = 0): Channel | undefined {
    return this.#numbers.get(number);
  }

  /** Opens all buses on a new connection. */
  connectionMade(): void {
    for (const channel of this.#channels.values()) this.#reopen(channel);
    for (const handle of this.#opening) this.#sendOpen(handle);
  }

  connectionLost(): void {
    this.#numbers.clear();
    for (const channel of this.#channels.values()) channel.connectionLost();
  }

  /** Ends all buses. */
  close(error: EbusError): SessionEvent[] {
    const refused = [...this.#opening].map((handle) => this.#closeHandle(handle, error));
    return [...refused, ...[...this.#channels.values()].flatMap((channel) => this.end(channel, error))];
  }

  /** Opens a bus: now if there is a connection, else on the next one. */
  open(params: OpenParams, connected: boolean): ChannelHandle {
    const handle = new ChannelHandle(params);
    this.#opening.add(handle);
    if (connected) this.#sendOpen(handle);
    return handle;
  }

  /** Reopens the buses whose retry is due. */
  retry(now: number): void {
    for (const channel of this.#channels.values()) if (channel.retryAt > 0 && now >= channel.retryAt) this.#reopen(channel);
  }

  /** The broker has opened a bus. */
  opened(frame: BrokerFrame & { type: "opened" }): SessionEvent[] {
    const sent = this.#pending.answered(frame.req);
    const handle = sent?.kind === "open" ? sent.handle : null;
    let channel = sent?.kind === "reopen" ? sent.channel : this.#channels.get(frame.address);
    if (!channel) {
      channel = new Channel(frame.address, frame.epoch, frame.spec, frame.cap, reopenParams(frame, handle?.params));
      this.#channels.set(frame.address, channel);
    }
    const reopened = channel.number === null;
    channel.opened(frame);
    this.#numbers.set(frame.bus, channel);
    if (handle) {
      this.#opening.delete(handle);
      handle.channel = channel;
      for (const write of this.#pending.writes.values()) if (write.handle === handle) channel.unacked.set(write.id, write);
      // A handle may have been closed meanwhile: only its writes are left to send.
      if (handle.error) this.#idle.add(channel);
      else channel.handles.add(handle);
      if (!reopened) this.#resume(channel, handle);
    }
    if (reopened) this.#resume(channel, null);
    return handle && !handle.error ? [{ type: "bus_opened", handle }] : [];
  }

  /** The broker could not open the bus. */
  refused(handle: ChannelHandle, error: EbusError): SessionEvent[] {
    const closed = handle.error ? [] : [this.#closeHandle(handle, error)];
    return [...closed, ...this.#pending.of(handle).map((pending) => this.#pending.settle(pending, error))];
  }

  /** Removes a closed handle; `finished` states that nothing of it is left to send. */
  leave(handle: ChannelHandle, finished: boolean): void {
    if (finished) this.#opening.delete(handle);
    const { channel } = handle;
    if (!channel) return;
    channel.handles.delete(handle);
    this.#idle.add(channel);
    this.flush(channel);
    this.updateSubscription(channel);
  }

  /** Leaves the buses without handles. An `open` under way may be for one of them, so they stay until it is answered. */
  leaveIdle(): void {
    if (this.#idle.size === 0 || this.#pending.opening) return;
    for (const channel of this.#idle) {
      if (channel.handles.size === 0 && this.#pending.of(channel).length > 0) continue;
      this.#idle.delete(channel);
      if (channel.handles.size > 0 || this.#channels.get(channel.address) !== channel) continue;
      if (channel.number !== null) this.#out.push(frames.leave(channel.number));
      this.#forget(channel);
    }
  }

  /** The bus has ended for this client, with everything that waits for it. */
  end(channel: Channel, error: EbusError): SessionEvent[] {
    this.#forget(channel);
    channel.number = null;
    channel.subscription = "none";
    const handles = [...channel.handles];
    channel.handles.clear();
    const settled = this.#pending.of(channel).map((pending) => this.#pending.settle(pending, error));
    return [...settled, ...handles.map((handle) => this.#closeHandle(handle, error))];
  }

  /** Sends the writes that wait for a flush. */
  flush(channel: Channel): void {
    const { number, batch } = channel;
    if (number === null) return;
    for (const { id, value, options } of batch) this.#out.push(frames.publish(number, id, value, options));
    channel.batch = [];
  }

  /** Subscribes or unsubscribes, as the readers of the bus require. */
  updateSubscription(channel: Channel): void {
    const { number, subscription } = channel;
    if (!channel.wantsMessages || channel.unreadable) {
      if (subscription !== "none" && number !== null) this.#out.push(frames.unsubscribe(number));
      channel.unsubscribed();
    } else if (subscription === "none" && number !== null) {
      channel.subscription = "requested";
      channel.subscribeRequest = this.#pending.number({ kind: "subscribe", channel });
      this.#out.push(frames.subscribe(channel.subscribeRequest, number, channel.resumePosition()));
    }
  }

  /** Sends what the handle wants of the bus or, without a handle (the bus is new on this connection), what all handles want. */
  #resume(channel: Channel, only: ChannelHandle | null): void {
    const { number } = channel;
    if (number === null) return;
    this.updateSubscription(channel);
    const handles = only ? [only] : [...channel.handles];
    if (handles.some((handle) => handle.wantsPresence)) this.#out.push(frames.watchPresence(number, true));
    for (const { state } of handles) if (state !== undefined) this.#out.push(frames.setPresence(number, state));
    if (!only) channel.batch = [];
    for (const { id, handle, value, options } of channel.unacked.values()) {
      if (!only || only === handle) this.#out.push(frames.publish(number, id, value, options));
    }
    for (const request of this.#pending.requests) {
      if (request.handle?.channel === channel && (!only || only === request.handle)) this.#pending.send(request, number);
    }
  }

  #sendOpen(handle: ChannelHandle): void {
    this.#pushOpen(this.#pending.number({ kind: "open", handle }), handle.params);
  }

  #reopen(channel: Channel): void {
    channel.retryAt = 0;
    this.#pushOpen(this.#pending.number({ kind: "reopen", channel }), channel.params);
  }

  #pushOpen(req: number, { scope, name, spec, owner, cap, create }: OpenParams): void {
    this.#out.push(frames.open(req, scope, name, spec, owner, cap, create));
  }

  #closeHandle(handle: ChannelHandle, error: EbusError): SessionEvent {
    handle.error ??= error;
    this.#opening.delete(handle);
    return { type: "bus_closed", handle, error };
  }

  #forget({ address, number }: Channel): void {
    this.#channels.delete(address);
    if (number !== null) this.#numbers.delete(number);
  }
}
