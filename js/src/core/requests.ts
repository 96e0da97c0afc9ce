/**
 * The writes and requests of a session that have no answer yet.
 *
 * Write ids count from 1 over all buses and survive reconnects, as do the requests themselves. Request numbers name one
 * attempt on one connection. The writes are bounded in bytes, `WRITE_BYTES` for each included.
 */
import { Write, type Channel, type ChannelHandle, type Request } from "./channel.js";
import { RateLimited, TooLarge, type EbusError } from "./errors.js";
import type { SessionEvent } from "./events.js";
import { deleteBus, fetchPage, listBuses, type Tail } from "./frames.js";
import type { Outbox } from "./outbox.js";

export const MAX_PENDING_BYTES = 64 << 20;
/** The memory that a write takes besides its value. */
export const WRITE_BYTES = 256;
/** More than a write and its message have besides the value and the options. */
const FRAME_BYTES = 64;

/** The broker's bounds, as far as they are known. */
export type Limits = Readonly<Record<string, number>>;

/** @throws TooLarge if `size` bytes are more than the broker's `limit`. */
export function checkSize(limits: Limits, limit: string, size: number, what: string): void {
  const most = limits[limit];
  if (most === undefined || size <= most) return;
  const text = `${what} has ${size} bytes, at most ${most} are allowed (${limit}).`;
  throw new TooLarge(text, { limit });
}

/**
 * @param mayBeAccepted - It was sent already, perhaps to a broker with other limits: only what cannot be sent is an error.
 * @throws TooLarge if the broker takes no such write.
 */
export function checkWrite(limits: Limits, { value, size }: Write, mayBeAccepted = false): void {
  if (!mayBeAccepted) checkSize(limits, "value_bytes", value.length, "the value");
  checkSize(limits, "batch_bytes", size + FRAME_BYTES, "the write");
}

/** The meaning of a numbered frame on the present connection. */
export type Sent =
  { kind: "open"; handle: ChannelHandle } | { kind: "reopen"; channel: Channel } | { kind: "subscribe"; channel: Channel } | Request;

export class PendingRequests {
  readonly writes = new Map<number, Write>();
  readonly requests = new Set<Request>();
  readonly #sent = new Map<number, Sent>();
  readonly #out: Outbox;
  #bytes = 0;
  #lastWrite = 0;
  #lastRequest = 0;

  constructor(out: Outbox) {
    this.#out = out;
  }

  /**
   * Adds a write with the next id.
   *
   * @throws RateLimited if there is no room: too many writes wait for an answer.
   * @throws TooLarge if the broker takes no such write.
   */
  addWrite(handle: ChannelHandle, value: Uint8Array, tail: Tail, limits: Limits): Write {
    const write = new Write(handle, this.#lastWrite + 1, value, tail);
    checkWrite(limits, write);
    const bytes = this.#bytes + write.size + WRITE_BYTES;
    if (this.writes.size > 0 && bytes > MAX_PENDING_BYTES) {
      throw new RateLimited(`${handle.label}: ${this.writes.size} writes wait. Await write().`, { limit: "max_pending" });
    }
    this.#lastWrite += 1;
    this.#bytes = bytes;
    this.writes.set(write.id, write);
    return write;
  }

  /** Sends a request on the present connection, where the bus has the given number (a listing needs none). */
  send(request: Request, bus = 0): void {
    const req = this.number(request);
    if (request.kind === "fetch") this.#out.send(fetchPage(req, bus, request.after, request.until));
    else this.#out.send(request.kind === "delete" ? deleteBus(req, bus) : listBuses(req));
  }

  /** Returns the number for a frame that asks for `sent`. */
  number(sent: Sent): number {
    this.#sent.set((this.#lastRequest += 1), sent);
    return this.#lastRequest;
  }

  /** Returns the meaning of the frame with number `req`, once. */
  answered(req: number): Sent | undefined {
    const sent = this.#sent.get(req);
    this.#sent.delete(req);
    return sent;
  }

  /** True if an `open` frame of a new handle has no answer yet. */
  get opening(): boolean {
    return [...this.#sent.values()].some(({ kind }) => kind === "open");
  }

  /** Returns whether `sent` is a request that still waits for its answer. */
  isWaiting(sent: Sent): sent is Request {
    return (this.requests as Set<Sent>).has(sent);
  }

  /** Returns everything that waits for the handle or the channel: the writes in order, then the requests. */
  of(owner: ChannelHandle | Channel): (Write | Request)[] {
    return [...this.writes.values(), ...this.requests].filter(({ handle }) => handle === owner || handle?.channel === owner);
  }

  settle(pending: Write | Request, error: EbusError | null, value?: unknown): SessionEvent {
    if (!(pending instanceof Write)) {
      this.requests.delete(pending);
      return { type: "request_settled", request: pending, error, value };
    }
    if (this.writes.delete(pending.id)) this.#bytes -= pending.size + WRITE_BYTES;
    this.#out.settled(pending);
    pending.handle.channel?.unacked.delete(pending.id);
    return { type: "write_settled", write: pending, error, offset: value as number | undefined };
  }

  /** Forgets the request numbers of the lost connection. Returns the deletions, which are not repeated. */
  connectionLost(): Request[] {
    this.#sent.clear();
    return [...this.requests].filter(({ kind }) => kind === "delete");
  }
}
