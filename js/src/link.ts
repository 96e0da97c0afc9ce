/**
 * The client's half, as a pure state machine: what the program wants becomes frames (`take`), the broker's frames become
 * events (`receive`). No timer, no socket, no clock: times are arguments, in milliseconds. `connection` carries it out.
 *
 * Reconnecting
 *     The instance id stays. Every bus is opened again (its number may be another one), every subscription resumes after
 *     the last message seen, and every write without an answer is sent again, in order, with its first id: the broker
 *     answers with its first offset if it had accepted it. So an unknown outcome always becomes a known one.
 *
 * Writing
 *     Ids count from 1 over all buses. A write is settled by its `ok`, by an `error`, or by its own delivery, whichever
 *     comes first. At most `MAX_PENDING` writes and `MAX_PENDING_BYTES` wait for an answer; one more is `RateLimited`.
 *
 * Reading
 *     What arrives lies in one log for each bus. A message whose offset is not greater than the last one seen is a
 *     duplicate and dropped. A refused resume either leaves a hole in the log (a `Gap`), or (`fresh`) what follows is all
 *     that the broker has: then the log begins anew and `history` counts one more.
 *
 * `follow` holds how a channel keeps up with its bus, `pulse` how it is seen that a broker is gone.
 */
import { Channel, Fetch, lasting, Listing, Port, Removal, Write, type OpenParams, type Question } from "./channel.js";
import { Closed, ConnectionLost, EbusError, fromWire, RateLimited, TooLarge } from "./errors.js";
import * as follow from "./follow.js";
import * as frames from "./frames.js";
import type { BrokerFrame, Participant, WriteOptions } from "./frames.js";
import { PATIENCE, Pulse } from "./pulse.js";

export const MAX_PENDING = 10_000;
export const MAX_PENDING_BYTES = 64 << 20;
/** How long to wait before a bus is asked for again that the broker could not open again. */
const RETRY = 1_000;

export type LinkEvent =
  /** The broker has welcomed this client. */
  | { type: "live"; you: Participant }
  | { type: "opened"; port: Port }
  /** The bus can't be opened, or is gone. It stays so. */
  | { type: "closed"; port: Port; error: EbusError }
  /** The channel's log has grown, or begun anew. */
  | { type: "readable"; channel: Channel }
  | { type: "presence"; channel: Channel }
  /** A write or a question has its answer. */
  | { type: "settled"; request: Write | Question; error: EbusError | null; value?: unknown }
  /** Something went wrong that nobody waits for. */
  | { type: "trouble"; error: EbusError }
  /** The broker closes the connection; `again`: whether to come back. */
  | { type: "bye"; error: EbusError; again: boolean };

type Asked = { kind: "open"; port: Port } | { kind: "reopen"; channel: Channel } | { kind: "subscribe"; channel: Channel } | Question;

export class Link {
  you: Participant | null = null;
  /** The broker has welcomed this client on the present connection. */
  live = false;
  /** Why this client has ended, once it has. */
  error: EbusError | null = null;
  #connected = false;
  #limits: Record<string, number> = {};
  #out: Uint8Array[] = [];
  #opening = new Set<Port>();
  #channels = new Map<string, Channel>();
  #numbers = new Map<number, Channel>();
  /** Channels that may have no use any more. */
  #idle = new Set<Channel>();
  #questions = new Set<Question>();
  #asked = new Map<number, Asked>();
  #writes = new Map<number, Write>();
  #pendingBytes = 0;
  #lastWrite = 0;
  #lastReq = 0;
  #lastPing = 0;
  readonly #pulse = new Pulse();

  /** `instance`: 32 hexadecimal digits that nobody can guess. */
  constructor(
    readonly instance: string,
    readonly client = "",
  ) {}

  // --- the connection -----------------------------------------------------------------------------------------------

  /** A new connection is there: greet, and ask for everything again. */
  opened(now: number): void {
    this.#connected = true;
    this.#pulse.begin(now);
    this.#out = [frames.hello(this.instance, this.client)];
    for (const channel of this.#channels.values()) this.#reopen(channel);
    for (const port of this.#opening) this.#askOpen(port);
  }

  /** The connection has ended. What has no answer is asked again on the next one, except to delete a bus. */
  lost(): LinkEvent[] {
    this.#connected = this.live = false;
    this.#pulse.end();
    this.#out = [];
    this.#asked.clear();
    this.#numbers.clear();
    for (const channel of this.#channels.values()) {
      channel.number = null;
      channel.reading = "no";
      channel.unreadable = null;
      channel.held = [];
    }
    const error = new ConnectionLost("the connection was lost before the broker answered; nobody knows whether the bus was deleted.");
    const removals = [...this.#questions].filter((question) => question.kind === "remove");
    return removals.map((request) => this.#settle(request, error));
  }

  /** This client ends. Everything that waits is told `error`. */
  end(error: EbusError): LinkEvent[] {
    const events = this.lost();
    this.error = error;
    for (const port of [...this.#opening]) events.push(this.#close(port, error));
    for (const channel of [...this.#channels.values()]) events.push(...this.#gone(channel, error));
    for (const request of [...this.#questions, ...this.#writes.values()]) events.push(this.#settle(request, error));
    return events;
  }

  /** The WebSocket messages to send now, none larger than the broker takes (unless one frame is). */
  take(): Uint8Array[] {
    const most = this.#limits.batch_bytes ?? 1 << 20;
    const messages: Uint8Array[] = [];
    let batch: Uint8Array[] = [];
    let size = 8;
    for (const frame of this.#out) {
      if (batch.length > 0 && size + frame.length > most) {
        messages.push(frames.join(batch));
        batch = [];
        size = 8;
      }
      batch.push(frame);
      size += frame.length;
    }
    if (batch.length > 0) messages.push(frames.join(batch));
    this.#out = [];
    return messages;
  }

  /** Time has passed. Returns false where the connection is to be given up: no answer within `patience`. */
  tick(now: number, patience = PATIENCE): boolean {
    const found = this.#pulse.look(now, patience);
    if (!this.#connected) return true;
    for (const channel of this.#channels.values()) {
      if (channel.retryAt > 0 && now >= channel.retryAt && this.live) this.#reopen(channel);
    }
    if (found === "quiet") this.probe(now);
    return found !== "lost";
  }

  /** Ask the broker whether it is there. */
  probe(now: number): void {
    if (!this.#connected) return;
    this.#pulse.asked(now);
    if (this.live) this.#out.push(frames.ping((this.#lastPing += 1)));
  }

  // --- what the program wants ---------------------------------------------------------------------------------------

  open(params: OpenParams): Port {
    if (this.error) throw this.error;
    const port = new Port(params);
    this.#opening.add(port);
    if (this.#connected) this.#askOpen(port);
    return port;
  }

  /** Close a port. What it wrote is still sent (and what it deletes, deleted); nobody waits for its pages any more. */
  close(port: Port): LinkEvent[] {
    port.error ??= new Closed(`${port.label} was closed on this page.`, { reason: "closed" });
    const { error, channel } = port;
    const mine = [...this.#questions].filter((question) => question.port === port);
    const pages = mine.filter((question) => question.kind === "fetch");
    const busy = mine.length > pages.length || [...this.#writes.values()].some((write) => write.port === port);
    if (!busy) this.#opening.delete(port);
    if (channel) {
      channel.ports.delete(port);
      this.#idle.add(channel);
      this.release(port);
      this.#settleReading(channel);
    }
    this.#sweep();
    return pages.map((request) => this.#settle(request, error));
  }

  /** Write a value that is encoded already. Throws `RateLimited`, `TooLarge`, or what closed the port. */
  publish(port: Port, value: Uint8Array, how: WriteOptions = {}, hold = false): Write {
    if (port.error) throw port.error;
    if (this.#writes.size >= MAX_PENDING || this.#pendingBytes + value.length > MAX_PENDING_BYTES) {
      throw new RateLimited(
        `${port.label}: ${this.#writes.size} writes wait for an answer (at most ${MAX_PENDING}, and ${MAX_PENDING_BYTES} bytes). ` +
          "Await write() as you write.",
        { limit: "max_pending", retry_after: 1 },
      );
    }
    const most = this.#limits.value_bytes ?? Infinity;
    if (value.length > most) {
      throw new TooLarge(`${port.label}: the value has ${value.length} bytes, at most ${most} may travel. Send it in pieces.`, {
        limit: "value_bytes",
      });
    }
    const write = new Write(port, (this.#lastWrite += 1), value, how);
    this.#writes.set(write.id, write);
    this.#pendingBytes += value.length;
    const { channel } = port;
    if (channel) {
      channel.writes.set(write.id, write);
      channel.held.push(write);
      if (!hold) this.release(port);
    }
    return write;
  }

  /** Send what waits for company. */
  release({ channel }: Port): void {
    if (channel?.number == null) return;
    for (const write of channel.held) this.#out.push(frames.publish(channel.number, write.id, write.value, write.how));
    channel.held = [];
  }

  /** One more reader wants live messages. */
  read(port: Port): void {
    port.readers += 1;
    if (port.channel) this.#settleReading(port.channel);
  }

  /** One reader less. */
  unread(port: Port): void {
    port.readers -= 1;
    if (port.channel) this.#settleReading(port.channel);
  }

  fetch(port: Port, after: number, until = 0): Fetch {
    return this.#question(new Fetch(port, after, until));
  }

  /** Delete the bus and its log, for everyone. */
  remove(port: Port): Removal {
    return this.#question(new Removal(port));
  }

  /** Which buses are within reach? */
  list(): Listing {
    return this.#question(new Listing());
  }

  /** Say something of oneself, now and after every reconnect; null withdraws it. */
  say(port: Port, state: unknown): void {
    port.state = state;
    if (port.channel?.number != null) this.#out.push(frames.setPresence(port.channel.number, state));
  }

  /** Be told who is there, now and after every reconnect. */
  watch(port: Port): void {
    const already = port.watching;
    port.watching = true;
    if (!already && port.channel?.number != null) this.#out.push(frames.watchPresence(port.channel.number, true));
  }

  // --- what the broker says -----------------------------------------------------------------------------------------

  /** A WebSocket message from the broker. */
  receive(bytes: Uint8Array, now: number): LinkEvent[] {
    this.#pulse.heard(now);
    const events: LinkEvent[] = [];
    try {
      const batch = frames.fromBroker(bytes);
      for (const frame of batch) this.#frame(frame, events, bytes.length / batch.length, now);
    } catch (error) {
      if (!(error instanceof EbusError)) throw error;
      events.push({ type: "bye", error, again: false });
    }
    this.#sweep();
    return events;
  }

  #frame(frame: BrokerFrame, events: LinkEvent[], size: number, now: number): void {
    switch (frame.type) {
      case "delivery":
        if (frame.message.sender.id === this.you?.id) this.#accepted(frame.write, frame.message.offset, events);
        return this.#follows(frame.bus, events, (channel) => follow.delivered(channel, frame.message, size));
      case "ok":
        for (let i = 0; i < frame.count; i++) this.#accepted(frame.id + i, frame.offset + i, events);
        return;
      case "error":
        return this.#refused(frame, events, now);
      case "welcome":
        this.you = frame.you;
        this.live = true;
        this.#limits = frame.limits;
        for (const question of this.#questions) if (question.kind === "list") this.#ask(question);
        events.push({ type: "live", you: frame.you });
        return;
      case "opened":
        return this.#opened(frame, events);
      case "subscribed":
        return this.#subscribed(frame, events);
      case "advance":
        return this.#follows(frame.bus, events, (channel) => follow.advanced(channel, frame.offset));
      case "lag":
        return this.#follows(frame.bus, events, (channel) => follow.lagged(channel, frame));
      case "page":
      case "done":
      case "listed": {
        const asked = this.#answer(frame.req);
        const value = frame.type === "page" ? frame : frame.type === "listed" ? frame.buses : null;
        if (asked && this.#isWaiting(asked)) events.push(this.#settle(asked, null, value));
        return;
      }
      case "presence":
        return this.#presence(frame, events);
      case "gone": {
        const channel = this.#numbers.get(frame.bus);
        if (!channel) return;
        const removals = [...this.#questions].filter((each) => each.kind === "remove" && each.port.channel === channel);
        events.push(...removals.map((request) => this.#settle(request, null, null)));
        events.push(...this.#gone(channel, new Closed(`${channel.address} is gone: ${frame.reason}.`, { reason: frame.reason })));
        return;
      }
      case "bye": {
        events.push({ type: "bye", error: fromWire(frame.code, frame.text), again: frame.reconnect });
        return;
      }
      case "pong":
        return;
    }
  }

  // --- opening ------------------------------------------------------------------------------------------------------

  #askOpen(port: Port): void {
    this.#sayOpen(this.#request({ kind: "open", port }), port.params);
  }

  #reopen(channel: Channel): void {
    channel.retryAt = 0;
    this.#sayOpen(this.#request({ kind: "reopen", channel }), channel.params);
  }

  #sayOpen(req: number, { scope, name, spec, owner, cap, create }: OpenParams): void {
    this.#out.push(frames.open(req, scope, name, spec, owner, cap, create));
  }

  #opened(frame: BrokerFrame & { type: "opened" }, events: LinkEvent[]): void {
    const asked = this.#answer(frame.req);
    const port = asked?.kind === "open" ? asked.port : null;
    let channel = asked?.kind === "reopen" ? asked.channel : this.#channels.get(frame.address);
    if (!channel) {
      channel = new Channel(frame.address, frame.epoch, frame.spec, frame.cap, lasting(frame, port?.params));
      this.#channels.set(frame.address, channel);
    }
    const reopened = channel.number === null;
    channel.number = frame.bus;
    if (!channel.resumable) {
      channel.epoch = frame.epoch;
      channel.target = frame.last;
    }
    this.#numbers.set(frame.bus, channel);
    if (port) {
      this.#opening.delete(port);
      port.channel = channel;
      for (const write of this.#writes.values()) if (write.port === port) channel.writes.set(write.id, write);
      if (!port.error) {
        channel.ports.add(port);
        events.push({ type: "opened", port });
      } else {
        this.#idle.add(channel);
      }
      if (!reopened) this.#resume(channel, [port]);
    }
    if (reopened) this.#resume(channel, null);
  }

  /** Say, on this connection, everything that is wanted of the bus: by these ports, or (null) by all. */
  #resume(channel: Channel, only: readonly Port[] | null): void {
    const { number } = channel;
    if (number === null) return;
    this.#settleReading(channel);
    const here = only ?? [...channel.ports];
    if (here.some((port) => port.watching)) this.#out.push(frames.watchPresence(number, true));
    for (const port of here) if (port.state !== undefined) this.#out.push(frames.setPresence(number, port.state));
    if (!only) channel.held = [];
    for (const { id, port, value, how } of channel.writes.values()) {
      if (!only || only.includes(port)) this.#out.push(frames.publish(number, id, value, how));
    }
    for (const question of this.#questions) {
      if (question.port?.channel === channel && (!only || only.includes(question.port))) this.#ask(question);
    }
  }

  /** Subscribe or unsubscribe, as the readers of the bus wish. */
  #settleReading(channel: Channel): void {
    let wanted = false;
    for (const port of channel.ports) wanted ||= port.readers > 0;
    if (!wanted || channel.unreadable) {
      if (channel.reading !== "no" && channel.number !== null) this.#out.push(frames.unsubscribe(channel.number));
      follow.unfollow(channel);
    } else if (channel.reading === "no" && channel.number !== null) {
      channel.reading = "asked";
      const req = (channel.asking = this.#request({ kind: "subscribe", channel }));
      this.#out.push(frames.subscribe(req, channel.number, ...follow.resumption(channel)));
    }
  }

  /** Leave the buses that nobody has a use for. Not while an `open` is on its way: it may be for one of them. */
  #sweep(): void {
    if (this.#idle.size === 0) return;
    for (const asked of this.#asked.values()) if (asked.kind === "open") return;
    const busy = new Set([...this.#questions].map(({ port }) => port?.channel));
    for (const channel of this.#idle) {
      if (channel.ports.size === 0 && (channel.writes.size > 0 || busy.has(channel))) continue;
      this.#idle.delete(channel);
      if (channel.ports.size > 0 || this.#channels.get(channel.address) !== channel) continue;
      if (channel.number !== null) {
        this.#out.push(frames.leave(channel.number));
        this.#numbers.delete(channel.number);
      }
      this.#channels.delete(channel.address);
    }
  }

  #close(port: Port, error: EbusError): LinkEvent {
    port.error ??= error;
    this.#opening.delete(port);
    return { type: "closed", port, error };
  }

  /** The bus is gone for this client, with everything that waits for it. */
  #gone(channel: Channel, error: EbusError): LinkEvent[] {
    this.#channels.delete(channel.address);
    if (channel.number !== null) this.#numbers.delete(channel.number);
    channel.number = null;
    channel.reading = "no";
    const ports = [...channel.ports];
    channel.ports.clear();
    const waiting = [...channel.writes.values(), ...[...this.#questions].filter(({ port }) => port?.channel === channel)];
    return [...waiting.map((request) => this.#settle(request, error)), ...ports.map((port) => this.#close(port, error))];
  }

  // --- questions and answers ----------------------------------------------------------------------------------------

  #request(asked: Asked): number {
    this.#asked.set((this.#lastReq += 1), asked);
    return this.#lastReq;
  }

  #answer(req: number): Asked | undefined {
    const asked = this.#asked.get(req);
    this.#asked.delete(req);
    return asked;
  }

  #question<T extends Question>(question: T): T {
    const error = question.port ? question.port.error : this.error;
    if (error) throw error;
    this.#questions.add(question);
    this.#ask(question);
    return question;
  }

  #ask(question: Question): void {
    if (question.kind === "list") {
      if (this.live) this.#out.push(frames.list(this.#request(question)));
      return;
    }
    const number = question.port.channel?.number;
    if (number == null) return;
    const req = this.#request(question);
    this.#out.push(question.kind === "fetch" ? frames.fetchPage(req, number, question.after, question.until) : frames.remove(req, number));
  }

  #settle(request: Write | Question, error: EbusError | null, value?: unknown): LinkEvent {
    if (request instanceof Write) {
      if (this.#writes.delete(request.id)) this.#pendingBytes -= request.value.length;
      request.port.channel?.writes.delete(request.id);
    } else {
      this.#questions.delete(request);
    }
    return { type: "settled", request, error, value };
  }

  #accepted(id: number, offset: number, events: LinkEvent[]): void {
    const write = this.#writes.get(id);
    if (!write) return;
    events.push(this.#settle(write, null, offset));
  }

  #refused(frame: BrokerFrame & { type: "error" }, events: LinkEvent[], now: number): void {
    const error = fromWire(frame.code, frame.text, frame.details);
    const write = this.#writes.get(frame.id);
    const asked = this.#answer(frame.req);
    if (write) {
      events.push(this.#settle(write, error));
    } else if (!asked) {
      if (frame.id === 0) events.push({ type: "trouble", error });
    } else if (asked.kind === "open") {
      const { port } = asked;
      if (!port.error) events.push(this.#close(port, error));
      for (const each of [...this.#writes.values(), ...this.#questions]) {
        if (each.port === port) events.push(this.#settle(each, error));
      }
    } else if (asked.kind === "reopen" && error.temporary) {
      asked.channel.retryAt = now + RETRY;
    } else if (asked.kind === "reopen") {
      events.push(...this.#gone(asked.channel, error));
    } else if (asked.kind === "subscribe") {
      asked.channel.unreadable = error;
      asked.channel.reading = "no";
      readable(asked.channel, events);
    } else if (this.#isWaiting(asked)) {
      events.push(this.#settle(asked, error));
    }
  }

  #isWaiting(asked: Asked): asked is Question {
    return (this.#questions as Set<Asked>).has(asked);
  }

  // --- reading ------------------------------------------------------------------------------------------------------

  #follows(bus: number, events: LinkEvent[], happens: (channel: Channel) => boolean): void {
    const channel = this.#numbers.get(bus);
    if (channel && happens(channel)) readable(channel, events);
  }

  #subscribed(frame: BrokerFrame & { type: "subscribed" }, events: LinkEvent[]): void {
    if (frame.req === 0) return this.#follows(frame.bus, events, (channel) => follow.begunAnew(channel, frame));
    const asked = this.#answer(frame.req);
    // An answer to a question before the last one says where a subscription began that has ended since.
    if (asked?.kind !== "subscribe" || asked.channel.reading !== "asked" || asked.channel.asking !== frame.req) return;
    follow.begun(asked.channel, frame);
    readable(asked.channel, events);
  }

  #presence({ bus, full, here, left }: BrokerFrame & { type: "presence" }, events: LinkEvent[]): void {
    const channel = this.#numbers.get(bus);
    if (!channel) return;
    if (full) channel.seats.clear();
    for (const seat of here) channel.seats.set(seat.who.id, seat);
    for (const id of left) channel.seats.delete(id);
    events.push({ type: "presence", channel });
  }
}

function readable(channel: Channel, events: LinkEvent[]): void {
  const last = events.at(-1);
  if (last?.type !== "readable" || last.channel !== channel) events.push({ type: "readable", channel });
}
