/**
 * One bus as a session knows it.
 *
 * A `Channel` keeps the received messages of its bus in one log, drops duplicates, records gaps, tracks the participants, and
 * knows the position where a new connection resumes. Each time the program opens a bus, it gets a `ChannelHandle`; all
 * handles of one bus share its channel. `Write`, `Fetch`, `Deletion` and `Listing` are requests that wait for an answer.
 *
 * `session` decides when a channel subscribes, and sends the frames.
 */
import { isUnnamed, nameOf } from "./address.js";
import type { EbusError } from "./errors.js";
import type { BrokerFrame, Delivery, Page, Seat, Spec, Tail } from "./frames.js";
import { Log, type Gap } from "./log.js";
import { decode, encode } from "./msgpack.js";
import { NOWHERE, type Position } from "./position.js";

type Opened = BrokerFrame & { type: "opened" };
type Subscribed = BrokerFrame & { type: "subscribed" };

/**
 * The fields of an `open` frame. `spec` (encoded) holds only the fields that the caller gave; `name` null requests a new
 * unnamed bus.
 */
export interface OpenParams {
  readonly scope: string;
  readonly name: string | null;
  readonly spec: Uint8Array;
  readonly owner: string;
  readonly cap: string;
  readonly create: boolean;
}

/**
 * Returns the parameters that open the bus again after a reconnect.
 *
 * They include the bus's whole spec, so that a broker that has lost the bus creates the same one, whichever client is first.
 * A bus that a kernel filters is never created from here: it would accept unfiltered writes. What the caller has given is
 * always repeated: who insists on no filter does so at each reopening, since another user may have made the bus anew.
 */
export function reopenParams({ address, cap, spec }: Opened, params: OpenParams, asked = params.spec): OpenParams {
  const name = params.name ?? nameOf(address);
  const create = params.create && !isUnnamed(name) && spec.filter !== "@owner";
  const given = Object.assign({}, decode(params.spec), decode(asked), create && { ...spec, maker: undefined });
  return { ...params, name, cap: params.cap || cap, create, spec: encode(given) };
}

/** Receives the events of one handle. The owner of the session calls it; the session itself never does. */
export interface HandleListener {
  opened(): void;
  closed(error: EbusError): void;
  messagesArrived(): void;
  presenceChanged(): void;
}

/** One opening of a bus. Two handles of one bus share a channel, and each can close without the other. */
export class ChannelHandle {
  /** Null until the broker has opened the bus. */
  channel: Channel | null = null;
  /** The reason why the handle is closed; null while it is not. */
  error: EbusError | null = null;
  /** The offset that the channel had reached, if messages arrived there before the handle was opened; else null. */
  joinedAt: number | null = null;
  /** The number of readers that need live messages. */
  reading = 0;
  /** The presence state of this client, encoded; null if none was set. */
  state: Uint8Array | null = null;
  wantsPresence = false;
  listener: HandleListener | null = null;

  constructor(readonly params: OpenParams) {}

  /** The bus's name, for error messages. */
  get label(): string {
    return this.params.name ?? this.channel?.address ?? "the unnamed bus";
  }

  /** The reason why no further message can be read; null while messages may still arrive. */
  get readError(): EbusError | null {
    return this.error ?? this.channel?.unreadable ?? null;
  }
}

export class Channel {
  /** The broker's number for the bus on this connection; null while the bus is not open there. */
  number: number | null = null;
  epoch: string;
  log: Log<Delivery | Gap>;
  /** "requested" until the broker has answered with the position where messages begin. */
  subscription: "none" | "requested" | "live" = "none";
  /** The number of the last subscribe request. */
  subscribeRequest = 0;
  /** The reason why this client may not read the bus on this connection; it may still write. */
  unreadable: EbusError | null = null;
  /** True if `log` is a history that a subscription can resume. */
  resumable = false;
  /** The position of the bus when messages were first requested; null if they were not, or no longer are. */
  subscribePosition: Position | null = null;
  /** The offset after which the log begins. */
  logStart = 0;
  /** The broker's last offset when it began to send. */
  target = 0;
  /** The last offset seen, including messages that were for other clients only. */
  last = 0;
  /** The last message seen since the log began or had a gap. Messages for others may have followed. */
  #lastSeen: Delivery | null = null;
  /** Counts how often another history, or a snapshot, has replaced the log. */
  resets = 0;
  /** The number of messages that the last reset skipped; null if it is unknown. */
  resetSkipped: number | null = 0;
  readonly handles = new Set<ChannelHandle>();
  /** Whether the broker sends the participants on this connection. */
  watching = false;
  /** The presence state that the broker has from this connection; null for none. */
  state: Uint8Array | null = null;
  readonly participants = new Map<string, Seat>();
  /** The writes without an answer, in order. */
  readonly unacked = new Map<number, Write>();
  /** The writes that wait for a flush. */
  batch: Write[] = [];
  /** The time of the next attempt to reopen, if the broker could not reopen the bus; 0 if none is due. */
  retryAt = 0;

  constructor(
    readonly address: string,
    epoch: string,
    public spec: Spec,
    readonly cap: string,
    public params: OpenParams,
  ) {
    this.epoch = epoch;
    this.log = new Log({ retain: spec.retain, size: spec.size });
  }

  /** The place that this client has reached: that of the last message that it could see, or else the bus's own. */
  get position(): Position {
    const { offset, id } = this.#lastSeen ?? { offset: this.resumable ? this.last : this.target, id: "" };
    return { epoch: this.epoch, offset, id };
  }

  get wantsMessages(): boolean {
    return [...this.handles].some((handle) => handle.reading > 0);
  }

  /** The broker has opened the bus on this connection. */
  opened({ bus, epoch, last, spec }: Opened): void {
    this.number = bus;
    this.spec = spec;
    if (this.resumable) return;
    this.epoch = epoch;
    this.target = last;
  }

  /** The connection is lost. The log and the position stay. */
  connectionLost(): void {
    this.number = this.unreadable = this.state = null;
    this.subscription = "none";
    this.batch = [];
    this.watching = false;
  }

  /**
   * Returns where messages are to begin: after the last offset, or (an empty epoch) from now on; and, if messages for others
   * came after the last message seen, the offset of that one.
   */
  resumePosition(): readonly [Position, number] {
    if (this.resumable) {
      const { position, last } = this;
      return [{ ...position, offset: last }, position.offset < last ? position.offset : 0];
    }
    // The answer to the first request was lost with its connection: the messages since that request are wanted.
    if (this.subscribePosition) return [this.subscribePosition, 0];
    this.subscribePosition = this.position;
    return [NOWHERE, 0];
  }

  /** The last reader is gone. A later subscription begins a new log. */
  unsubscribed(): void {
    this.subscription = "none";
    this.resumable = false;
    this.subscribePosition = null;
  }

  // The methods below take what the broker sends, and return whether readers have something new to look at.

  /** Messages follow: the answer to the last subscribe request, or (without a request) a snapshot for a reader that lagged. */
  subscribed(frame: Subscribed): boolean {
    if (frame.req === 0) {
      if (this.subscription !== "live" || frame.recovered) return false;
      this.target = frame.last;
      return this.missed(frame.after, frame.skipped, frame.fresh);
    }
    // The answer to an earlier request states where a subscription began that has ended since.
    if (this.subscription !== "requested" || this.subscribeRequest !== frame.req) return false;
    this.subscription = "live";
    this.target = frame.last;
    const fresh = frame.fresh || frame.epoch !== this.epoch;
    if (!this.resumable) {
      const start = frame.recovered || fresh ? frame.after : (this.subscribePosition?.offset ?? frame.after);
      this.log.restart(start);
      this.logStart = this.last = start;
      this.#lastSeen = null;
      this.resumable = true;
      if (start < frame.after) this.missed(frame.after, frame.skipped);
    } else if (!frame.recovered) {
      this.missed(frame.after, frame.skipped, fresh);
    }
    this.epoch = frame.epoch;
    return true;
  }

  /** A message has arrived. Duplicates are dropped. */
  delivered(message: Delivery): boolean {
    if (this.subscription !== "live" || message.offset <= this.last) return false;
    this.last = message.offset;
    this.#lastSeen = message;
    this.log.append(message);
    return true;
  }

  /** The order has advanced over a message that is not for this client. */
  advanced(offset: number): boolean {
    if (this.subscription !== "live" || offset <= this.last) return false;
    this.last = offset;
    return true;
  }

  /**
   * Messages up to `offset` are missing: `skipped` of them, negative if the number is unknown. The log gets a gap, or
   * (`fresh`) begins anew, because the following messages are all that the broker has.
   */
  missed(offset: number, skipped: number, fresh = false): boolean {
    if (this.subscription !== "live") return false;
    const known = skipped < 0 ? null : skipped;
    if (fresh || offset <= this.last) {
      this.log.restart(offset);
      this.resets += 1;
      this.resetSkipped = known;
    } else {
      this.log.append({ gap: true, offset, skipped: known });
    }
    this.last = offset;
    this.#lastSeen = null;
    return true;
  }

  /** The participants (`full`), or the changes of their list. */
  presenceReceived({ full, here, left }: BrokerFrame & { type: "presence" }): void {
    if (full) this.participants.clear();
    for (const seat of here) this.participants.set(seat.who.id, seat);
    for (const id of left) this.participants.delete(id);
  }
}

/** A request is settled once: the owner of the session calls `done` with an error or with the value. */
interface Pending<T> {
  done: ((error: EbusError | null, value: T | undefined) => void) | null;
}

/** A write without an answer. It is encoded; every retry keeps the id. */
export class Write implements Pending<number> {
  done: Pending<number>["done"] = null;
  constructor(
    readonly handle: ChannelHandle,
    readonly id: number,
    readonly value: Uint8Array,
    readonly tail: Tail,
  ) {}

  get size(): number {
    return this.value.length + this.tail.bytes.length;
  }
}

/**
 * A request without an answer: for a page of history (after `after`; negative: the last n messages; up to `until`; 0: the last
 * offset), for the end of the bus and its log, or (without a handle) for the list of the buses that this client may open.
 */
export class Request<T = unknown> implements Pending<T> {
  done: Pending<T>["done"] = null;
  constructor(
    readonly kind: "fetch" | "delete" | "list",
    readonly handle: ChannelHandle | null = null,
    readonly after = 0,
    readonly until = 0,
  ) {}
}

export type Fetch = Request<Page>;
export type Deletion = Request<null>;
export type Listing = Request<readonly Readonly<Record<string, unknown>>[]>;
