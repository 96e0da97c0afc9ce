/**
 * The buses of a session: which of them are opening, open, or no longer used.
 *
 * A bus is opened once for each handle, and reopened once on each new connection. Then the registry resumes the bus: it
 * sends what the handles want, in the order subscription, presence, writes, requests. A bus without handles is left when
 * nothing of it waits for an answer.
 */
import { Channel, ChannelHandle, reopenParams, type OpenParams, type Request } from "./channel.js";
import type { EbusError } from "./errors.js";
import type { SessionEvent } from "./events.js";
import * as frames from "./frames.js";
import type { BrokerFrame } from "./frames.js";
import { encode } from "./msgpack.js";
import type { Outbox } from "./outbox.js";
import type { PendingRequests } from "./requests.js";

export class ChannelRegistry {
  readonly #out: Outbox;
  readonly #pending: PendingRequests;
  readonly #opening = new Set<ChannelHandle>();
  readonly #channels = new Map<string, Channel>();
  readonly #numbers = new Map<number, Channel>();
  /** The channels that may have no use any more. */
  readonly #idle = new Set<Channel>();

  constructor(out: Outbox, pending: PendingRequests) {
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
  opened(frame: BrokerFrame & { type: "opened" }, now: number): SessionEvent[] {
    const sent = this.#pending.answered(frame.req);
    const handle = sent?.kind === "open" ? sent.handle : null;
    let channel = sent?.kind === "reopen" ? sent.channel : this.#channels.get(frame.address);
    const asked = channel?.params ?? handle?.params;
    if (!asked) return [];
    const params = reopenParams(frame, { ...asked, create: asked.create || !!handle?.params.create }, handle?.params.spec);
    if (!channel) {
      channel = new Channel(frame.address, frame.epoch, frame.spec, frame.cap, params);
      this.#channels.set(frame.address, channel);
    }
    channel.params = params;
    const reopened = channel.number === null;
    channel.opened(frame);
    this.#numbers.set(frame.bus, channel);
    if (handle) {
      this.#opening.delete(handle);
      handle.channel = channel;
      if (channel.resumable) handle.joinedAt = channel.last;
      for (const write of this.#pending.writes.values()) if (write.handle === handle) channel.unacked.set(write.id, write);
      // A handle may have been closed meanwhile: only its writes are left to send.
      if (handle.error) this.#idle.add(channel);
      else channel.handles.add(handle);
      if (!reopened) this.#resume(channel, handle, now);
    }
    if (reopened) this.#resume(channel, null, now);
    return handle && !handle.error ? [{ type: "bus_opened", handle }] : [];
  }

  /** The broker could not open the bus. */
  refused(handle: ChannelHandle, error: EbusError): SessionEvent[] {
    const closed = handle.error ? [] : [this.#closeHandle(handle, error)];
    return [...closed, ...this.#pending.of(handle).map((pending) => this.#pending.settle(pending, error))];
  }

  /** Removes a closed handle; `finished` states that nothing of it is left to send. */
  leave(handle: ChannelHandle, finished: boolean, now: number): void {
    if (finished) this.#opening.delete(handle);
    const { channel } = handle;
    if (!channel) return;
    channel.handles.delete(handle);
    this.#idle.add(channel);
    this.flush(channel, now);
    this.updateSubscription(channel);
    if (channel.handles.size > 0) this.updatePresence(channel);
  }

  /** Leaves the buses without handles. An `open` under way may be for one of them, so they stay until it is answered. */
  leaveIdle(): void {
    if (this.#idle.size === 0 || this.#pending.opening) return;
    for (const channel of this.#idle) {
      if (channel.handles.size === 0 && this.#pending.of(channel).length > 0) continue;
      this.#idle.delete(channel);
      if (channel.handles.size > 0 || this.#channels.get(channel.address) !== channel) continue;
      if (channel.number !== null) this.#out.send(frames.leave(channel.number));
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
  flush(channel: Channel, now: number): void {
    for (const write of channel.batch) this.#out.write(write, now);
    channel.batch = [];
  }

  /** Subscribes or unsubscribes, as the readers of the bus require. */
  updateSubscription(channel: Channel): void {
    const { number, subscription } = channel;
    if (!channel.wantsMessages || channel.unreadable) {
      if (subscription !== "none" && number !== null) this.#out.send(frames.unsubscribe(number));
      channel.unsubscribed();
    } else if (subscription === "none" && number !== null) {
      channel.subscription = "requested";
      channel.subscribeRequest = this.#pending.number({ kind: "subscribe", channel });
      this.#out.send(frames.subscribe(channel.subscribeRequest, number, ...channel.resumePosition()));
    }
  }

  /** Watches the participants, and sets this client's state, as the handles of the bus require: the last one that set it. */
  updatePresence(channel: Channel): void {
    const { number, handles } = channel;
    if (number === null) return;
    const watching = [...handles].some((handle) => handle.wantsPresence);
    const state = [...handles].findLast((handle) => handle.state)?.state ?? null;
    if (watching !== channel.watching) this.#out.send(frames.watchPresence(number, watching));
    if (state !== channel.state) this.#out.send(frames.setPresence(number, state ?? encode(null)));
    channel.watching = watching;
    channel.state = state;
  }

  /** Sends what the handle wants of the bus or, without a handle (the bus is new on this connection), what all handles want. */
  #resume(channel: Channel, only: ChannelHandle | null, now: number): void {
    this.updateSubscription(channel);
    this.updatePresence(channel);
    if (!only) channel.batch = [];
    for (const write of channel.unacked.values()) if (!only || only === write.handle) this.#out.write(write, now);
    for (const request of this.#pending.requests) {
      if (request.handle?.channel === channel && (!only || only === request.handle)) this.sendRequest(request, channel);
    }
  }

  /** Sends a request about the bus. A deletion does not overtake writes. */
  sendRequest(request: Request, channel: Channel): void {
    const send = () => {
      if (channel.number !== null && this.#pending.isWaiting(request)) this.#pending.send(request, channel.number);
    };
    if (request.kind === "delete") this.#out.behind(send);
    else send();
  }

  #sendOpen(handle: ChannelHandle): void {
    this.#pushOpen(this.#pending.number({ kind: "open", handle }), handle.params);
  }

  #reopen(channel: Channel): void {
    channel.retryAt = 0;
    this.#pushOpen(this.#pending.number({ kind: "reopen", channel }), channel.params);
  }

  #pushOpen(req: number, { scope, name, spec, owner, cap, create }: OpenParams): void {
    this.#out.send(frames.open(req, scope, name, spec, owner, cap, create));
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
