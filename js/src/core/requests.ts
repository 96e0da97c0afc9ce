/**
 * The writes and requests of a session that have no answer yet.
 *
 * Write ids count from 1 over all buses and survive reconnects, as do the requests themselves. Request numbers name one
 * attempt on one connection. At most `MAX_PENDING` writes and `MAX_PENDING_BYTES` wait for an answer.
 */
import { Write, type Channel, type ChannelHandle, type Request } from "./channel.js";
import { RateLimited, TooLarge, type EbusError } from "./errors.js";
import type { SessionEvent } from "./events.js";
import { deleteBus, fetchPage, listBuses, type WriteOptions } from "./frames.js";

export const MAX_PENDING = 10_000;
export const MAX_PENDING_BYTES = 64 << 20;

/** The meaning of a numbered frame on the present connection. */
export type Sent =
  { kind: "open"; handle: ChannelHandle } | { kind: "reopen"; channel: Channel } | { kind: "subscribe"; channel: Channel } | Request;

export class PendingRequests {
  readonly writes = new Map<number, Write>();
  readonly requests = new Set<Request>();
  readonly #sent = new Map<number, Sent>();
  readonly #out: Uint8Array[];
  #bytes = 0;
  #lastWrite = 0;
  #lastRequest = 0;

  /** @param out - The session's outgoing frames. */
  constructor(out: Uint8Array[]) {
    this.#out = out;
  }

  /**
   * Adds a write with the next id.
   *
   * @throws RateLimited if too many writes wait for an answer.
   * @throws TooLarge if the value has more than `maxBytes` bytes.
   */
  addWrite(handle: ChannelHandle, value: Uint8Array, options: WriteOptions, maxBytes: number): Write {
    if (this.writes.size >= MAX_PENDING || this.#bytes + value.length > MAX_PENDING_BYTES) {
      throw new RateLimited(
        `${handle.label}: ${this.writes.size} writes wait for an answer (at most ${MAX_PENDING}, and ${MAX_PENDING_BYTES} bytes). ` +
          "Await write() as you write.",
        { limit: "max_pending", retry_after: 1 },
      );
    }
    if (value.length > maxBytes) {
      throw new TooLarge(`${handle.label}: the value has ${value.length} bytes, at most ${maxBytes} are allowed. Send it in pieces.`, {
        limit: "value_bytes",
      });
    }
    const write = new Write(handle, (this.#lastWrite += 1), value, options);
    this.writes.set(write.id, write);
    this.#bytes += value.length;
    return write;
  }

  /** Sends a request on the present connection, where the bus has the given number (a listing needs none). */
  send(request: Request, bus = 0): void {
    const req = this.number(request);
    if (request.kind === "fetch") this.#out.push(fetchPage(req, bus, request.after, request.until));
    else this.#out.push(request.kind === "delete" ? deleteBus(req, bus) : listBuses(req));
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
    if (this.writes.delete(pending.id)) this.#bytes -= pending.value.length;
    pending.handle.channel?.unacked.delete(pending.id);
    return { type: "write_settled", write: pending, error, offset: value as number | undefined };
  }

  /** Forgets the request numbers of the lost connection. Returns the deletions, which are not repeated. */
  connectionLost(): Request[] {
    this.#sent.clear();
    return [...this.requests].filter(({ kind }) => kind === "delete");
  }
}
