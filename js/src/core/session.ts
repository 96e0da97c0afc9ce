/**
 * The client's state machine.
 *
 * The calls of the program become frames (`dataToSend`), and the broker's frames become events (`receiveData`). A session
 * has no timer, socket or clock: times are arguments, in milliseconds. `client/connection` runs it.
 *
 * Reconnecting
 *     A session survives its connections; the instance id stays. On a new connection every bus is opened again (its number
 *     may change), every subscription resumes after the last message seen, and every write without an answer is sent again,
 *     in order, with its first id. If the broker had accepted the write, it answers with the first offset. So an unknown
 *     outcome always becomes a known one.
 *
 * Writing
 *     A write is settled once, by its `ok`, by an `error`, or by its own delivery, whichever comes first. What the program
 *     gives is checked and encoded in its own call: what reaches `dataToSend` can be sent. `outbox` keeps to the broker's rate.
 *
 * Reading
 *     Each bus has one log of received messages (`channel`). A message whose offset is not greater than the last one seen
 *     is a duplicate and is dropped. A refused resume either leaves a gap in the log or, if the broker has another history
 *     (`fresh`), begins the log anew and increments `resets`.
 *
 * `registry` opens and leaves buses, `requests` holds what waits for an answer, `heartbeat` detects a broker that is gone.
 */
import {
  Request,
  type Channel,
  type ChannelHandle,
  type Deletion,
  type Fetch,
  type Listing,
  type OpenParams,
  type Write,
} from "./channel.js";
import { Closed, ConnectionLost, EbusError, fromWire, RateLimited } from "./errors.js";
import type { SessionEvent } from "./events.js";
import * as frames from "./frames.js";
import type { BrokerFrame, Participant, Spec, WriteOptions } from "./frames.js";
import { Heartbeat, PATIENCE } from "./heartbeat.js";
import { encode } from "./msgpack.js";
import { Outbox } from "./outbox.js";
import { ChannelRegistry } from "./registry.js";
import { checkSize, checkWrite, PendingRequests, type Limits } from "./requests.js";

/** The delay before a bus is opened again that the broker could not reopen. */
const RETRY = 1_000;
/** The maximal size of a message before the broker has stated its limits. */
const EARLY_BYTES = 64 << 10;
/** The limits of which no broker has less: what is set before they are known is held to them. */
const DEFAULTS: Limits = { batch_bytes: 8 << 20, presence_bytes: 4 << 10 };

export class Session {
  /** This client, as the broker knows it; null until the first welcome. */
  you: Participant | null = null;
  /** True if the broker has accepted this client on the present connection. */
  live = false;
  /** The reason why the session is closed; null while it is not. */
  error: EbusError | null = null;
  #connected = false;
  #limits: Limits | null = null;
  readonly #out = new Outbox();
  readonly #pending = new PendingRequests(this.#out);
  readonly #buses = new ChannelRegistry(this.#out, this.#pending);
  readonly #heartbeat = new Heartbeat();

  /**
   * @param instance - 32 hexadecimal digits that nobody can guess.
   * @param client - A description of the client, for the broker's log.
   */
  constructor(
    readonly instance: string,
    readonly client = "",
  ) {}

  // --- the connection -----------------------------------------------------------------------------------------------

  /** A new connection is open. The session greets the broker and opens all buses again. */
  connectionMade(now: number): void {
    this.#connected = true;
    this.#heartbeat.start(now);
    this.#out.clear();
    this.#out.send(frames.hello(this.instance, this.client));
    this.#buses.connectionMade();
  }

  /** The connection is lost. The next one repeats all requests without an answer, except deletions. */
  connectionLost(): SessionEvent[] {
    this.#connected = this.live = false;
    this.#heartbeat.stop();
    this.#out.clear();
    this.#buses.connectionLost();
    // Another bus may have the name by then.
    const error = new ConnectionLost("the bus may be deleted or not.");
    return this.#pending.connectionLost().map((deletion) => this.#pending.settle(deletion, error));
  }

  /** Closes the session. Everything that waits gets `error`. */
  close(error: EbusError): SessionEvent[] {
    const events = this.connectionLost();
    this.error = error;
    events.push(...this.#buses.close(error));
    const { requests, writes } = this.#pending;
    for (const pending of [...requests, ...writes.values()]) events.push(this.#pending.settle(pending, error));
    return events;
  }

  /** Returns the WebSocket messages to send now. None exceeds the broker's limit, unless a single frame does. */
  dataToSend(now: number): Uint8Array[] {
    this.#out.tick(now);
    return this.#out.take(this.#limits?.batch_bytes ?? EARLY_BYTES);
  }

  /** Returns the time until there is more to send; null if only a frame of the broker, or a call, can give more. */
  wait(now: number): number | null {
    return this.#out.wait(now);
  }

  /** Advances the time. Returns false if the connection is to be given up: the broker did not answer within `patience`. */
  tick(now: number, patience = PATIENCE): boolean {
    const state = this.#heartbeat.check(now, patience);
    if (!this.#connected) return true;
    if (this.live) this.#buses.retry(now);
    if (state === "silent") this.ping(now);
    return state !== "lost";
  }

  /** Requests a sign of life from the broker. */
  ping(now: number): void {
    if (!this.#connected) return;
    this.#heartbeat.pingSent(now);
    if (this.live) this.#out.send(frames.ping(0));
  }

  // --- the program's calls ------------------------------------------------------------------------------------------

  /**
   * Opens a bus.
   *
   * @throws TypeError if a field cannot be encoded. Nothing is opened then.
   * @throws TooLarge if the server takes no such specification.
   */
  open({ spec, ...where }: Omit<OpenParams, "spec"> & { spec: Spec }): ChannelHandle {
    if (this.error) throw this.error;
    const params = { ...where, spec: encode(spec) };
    const { scope, name, owner, cap, create } = params;
    const frame = frames.open(0, scope, name, params.spec, owner, cap, create);
    checkSize(this.#limits ?? DEFAULTS, "batch_bytes", frame.length + 16, "the specification");
    return this.#buses.open(params, this.#connected);
  }

  /** Closes a handle. Its writes and deletions are still sent; its page requests end with an error. */
  leave(handle: ChannelHandle, now: number): SessionEvent[] {
    handle.error ??= new Closed(`${handle.label} was closed on this page.`, { reason: "closed" });
    const { error } = handle;
    const pending = this.#pending.of(handle);
    const fetches = pending.filter((each) => "kind" in each && each.kind === "fetch");
    this.#buses.leave(handle, pending.length === fetches.length, now);
    this.#buses.leaveIdle();
    return fetches.map((fetch) => this.#pending.settle(fetch, error));
  }

  /**
   * Writes an encoded value.
   *
   * @param batch - Wait for a `flush`, or for a write that does not wait.
   * @throws RateLimited if too many writes wait for an answer.
   * @throws TooLarge if the value exceeds the broker's limit.
   * @throws TypeError if an option has another type than the broker reads.
   * @throws EbusError - the reason why the handle is closed.
   */
  publish(handle: ChannelHandle, value: Uint8Array, now: number, options: WriteOptions = {}, batch = false): Write {
    if (handle.error) throw handle.error;
    const write = this.#pending.addWrite(handle, value, frames.encodeOptions(options), this.#limits ?? {});
    const { channel } = handle;
    if (channel) {
      channel.unacked.set(write.id, write);
      channel.batch.push(write);
      if (!batch) this.flush(handle, now);
    }
    return write;
  }

  /** Sends the writes that wait for a flush. */
  flush({ channel }: ChannelHandle, now: number): void {
    if (channel?.number != null) this.#buses.flush(channel, now);
  }

  /** Adds a reader that needs live messages. */
  subscribe(handle: ChannelHandle): void {
    handle.reading += 1;
    if (handle.channel) this.#buses.updateSubscription(handle.channel);
  }

  /** Removes a reader. */
  unsubscribe(handle: ChannelHandle): void {
    handle.reading -= 1;
    if (handle.channel) this.#buses.updateSubscription(handle.channel);
  }

  /** Requests a page of history: see `Fetch`. */
  fetch(handle: ChannelHandle, after: number, until = 0): Fetch {
    return this.#addRequest(new Request("fetch", handle, after, until));
  }

  /** Forgets a request that nobody waits for any more: it is not sent again, and its answer changes nothing. */
  cancel<T>(request: Request<T>): void {
    this.#pending.requests.delete(request as Request);
  }

  /** Deletes the bus and its log for all participants. */
  delete(handle: ChannelHandle): Deletion {
    return this.#addRequest(new Request("delete", handle));
  }

  /** Requests the list of the buses that this client may open. */
  listBuses(): Listing {
    return this.#addRequest(new Request("list"));
  }

  /**
   * Sets this client's presence state (encoded), now and after every reconnect; null withdraws it. With several handles of
   * one bus, the state is that of the one that has set it last.
   *
   * @throws TooLarge if the server takes no such state.
   */
  setPresence(handle: ChannelHandle, state: Uint8Array | null): void {
    const { channel, error } = handle;
    checkSize(this.#limits ?? DEFAULTS, "presence_bytes", state?.length ?? 0, "the presence state");
    handle.state = state;
    if (error || !channel?.handles.delete(handle)) return;
    channel.handles.add(handle);
    this.#buses.updatePresence(channel);
  }

  /** Requests the participants and their changes, now and after every reconnect. */
  watchPresence(handle: ChannelHandle): void {
    handle.wantsPresence = true;
    if (handle.channel) this.#buses.updatePresence(handle.channel);
  }

  // --- the broker's frames ------------------------------------------------------------------------------------------

  /** Takes a WebSocket message from the broker. */
  receiveData(bytes: Uint8Array, now: number): SessionEvent[] {
    this.#heartbeat.dataReceived(now);
    const events: SessionEvent[] = [];
    try {
      const batch = frames.fromBroker(bytes);
      for (const frame of batch) this.#receive(frame, events, now);
    } catch (error) {
      if (!(error instanceof EbusError)) throw error;
      events.push({ type: "connection_ended", error, reconnect: false });
    }
    this.#buses.leaveIdle();
    return events;
  }

  #receive(frame: BrokerFrame, events: SessionEvent[], now: number): void {
    const channel = this.#buses.get((frame as { bus?: number }).bus);
    switch (frame.type) {
      case "delivery":
        if (frame.message.sender.id === this.you?.id) this.#accepted(frame.write, frame.message.offset, events);
        return arrived(channel, channel?.delivered(frame.message), events);
      case "ok":
        for (let i = 0; i < frame.count; i++) this.#accepted(frame.id + i, frame.offset + i, events);
        return;
      case "error":
        return this.#errorReceived(frame, events, now);
      case "welcome": {
        const { limits } = frame;
        this.#out.pace.begin(limits.publish_rate ?? 0, limits.publish_burst ?? limits.publish_rate ?? 0, now);
        for (const write of [...this.#pending.writes.values()]) {
          try {
            checkWrite(limits, write, this.#limits !== null);
          } catch (error) {
            events.push(this.#pending.settle(write, error as EbusError));
          }
        }
        this.you = frame.you;
        this.live = true;
        this.#limits = { ...DEFAULTS, ...limits };
        for (const request of this.#pending.requests) if (request.kind === "list") this.#pending.send(request);
        events.push({ type: "welcomed", you: frame.you });
        return;
      }
      case "opened":
        events.push(...this.#buses.opened(frame, now));
        return;
      case "subscribed": {
        const sent = this.#pending.answered(frame.req);
        const subscribed = sent?.kind === "subscribe" ? sent.channel : frame.req === 0 ? channel : undefined;
        return arrived(subscribed, subscribed?.subscribed(frame), events);
      }
      case "advance":
        return arrived(channel, channel?.advanced(frame.offset), events);
      case "lag":
        return arrived(channel, channel?.missed(frame.resumeAfter, frame.skipped), events);
      case "page":
      case "done":
      case "listed": {
        const sent = this.#pending.answered(frame.req);
        const value = frame.type === "page" ? frame : frame.type === "listed" ? frame.buses : null;
        if (sent && this.#pending.isWaiting(sent)) events.push(this.#pending.settle(sent, null, value));
        return;
      }
      case "presence":
        if (!channel) return;
        channel.presenceReceived(frame);
        events.push({ type: "presence_changed", channel });
        return;
      case "gone": {
        if (!channel) return;
        const deletions = this.#pending.of(channel).filter((each) => "kind" in each && each.kind === "delete");
        events.push(...deletions.map((deletion) => this.#pending.settle(deletion, null, null)));
        events.push(...this.#buses.end(channel, new Closed(`${channel.address} is gone: ${frame.reason}.`, { reason: frame.reason })));
        return;
      }
      case "bye":
        events.push({ type: "connection_ended", error: fromWire(frame.code, frame.text), reconnect: frame.reconnect });
        return;
      case "pong":
        return this.#out.ponged(frame.n);
    }
  }

  #accepted(id: number, offset: number, events: SessionEvent[]): void {
    const write = this.#pending.writes.get(id);
    if (write) events.push(this.#pending.settle(write, null, offset));
  }

  #errorReceived(frame: BrokerFrame & { type: "error" }, events: SessionEvent[], now: number): void {
    const error = fromWire(frame.code, frame.text, frame.details);
    const write = this.#pending.writes.get(frame.id);
    const sent = this.#pending.answered(frame.req);
    if (frame.id > 0 && error instanceof RateLimited && error.details.limit === "publish_rate" && this.#out.pace.rate) {
      this.#out.refused(write, Number(error.details.retry_after ?? 0), now);
    } else if (write) {
      events.push(this.#pending.settle(write, error));
    } else if (!sent) {
      if (frame.id === 0) events.push({ type: "error_reported", error });
    } else if (sent.kind === "open") {
      events.push(...this.#buses.refused(sent.handle, error));
    } else if (sent.kind === "reopen" && error.temporary) {
      sent.channel.retryAt = now + RETRY;
    } else if (sent.kind === "reopen") {
      events.push(...this.#buses.end(sent.channel, error));
    } else if (sent.kind === "subscribe") {
      sent.channel.unreadable = error;
      sent.channel.subscription = "none";
      arrived(sent.channel, true, events);
    } else if (this.#pending.isWaiting(sent)) {
      events.push(this.#pending.settle(sent, error));
    }
  }

  /** Sends a request now if the connection allows it; else on the next connection. */
  #addRequest<T extends Request>(request: T): T {
    const { handle } = request;
    const error = handle ? handle.error : this.error;
    if (error) throw error;
    this.#pending.requests.add(request);
    if (handle?.channel) this.#buses.sendRequest(request, handle.channel);
    else if (!handle && this.live) this.#pending.send(request);
    return request;
  }
}

/** Reports the change of a channel's log, once for consecutive changes. */
function arrived(channel: Channel | undefined, changed: boolean | undefined, events: SessionEvent[]): void {
  if (!channel || !changed) return;
  const last = events.at(-1);
  if (last?.type !== "messages_arrived" || last.channel !== channel) events.push({ type: "messages_arrived", channel });
}
