/**
 * The wire protocol: MessagePack arrays that begin with the number of the frame's type.
 *
 * The specification is `ebus_jupyter.core.protocol.frames`; this module mirrors it field by field.
 *
 * One WebSocket message is an array of frames. New fields are only added at a frame's end, with a default. Receivers ignore
 * unknown fields and frames of unknown types. A value is encoded when it is written, so that a retry sends the same bytes
 * even if the program has changed its object since.
 */
import { ProtocolError, TypeMismatch } from "./errors.js";
import { decode, encode, Raw } from "./msgpack.js";

export const VERSION = 1;

/** The bytes of a message besides its frames, at most. */
const MESSAGE_OVERHEAD = 8;

/** The writer of a message, as the broker knows it from the authenticated connection. A client cannot claim another identity. */
export interface Participant {
  /** Identifies one client instance; reconnects keep it. */
  readonly id: string;
  readonly kind: "kernel" | "page" | "server" | "client";
  readonly user: string;
  /** The display name from the identity provider. */
  readonly name: string;
  /** The kernel's id if `kind` is "kernel"; else "". */
  readonly kernelId: string;
}

/** One accepted write, as all participants receive it. */
export interface Message<T = unknown> {
  /** The position in the bus's order. Offsets strictly increase; they need not be contiguous. */
  readonly offset: number;
  /** Identifies the write; a retry keeps it. */
  readonly id: string;
  /** The time of acceptance by the broker's clock, in seconds since the Unix epoch. */
  readonly time: number;
  readonly value: T;
  readonly sender: Participant;
  /** The key that the message sets, on a bus that retains by key; else null. */
  readonly key: string | null;
  /** True if the message removes that key. */
  readonly deleted: boolean;
}

/** One participant of a bus. */
export interface Seat {
  readonly who: Participant;
  /** "away": the connection is lost, and the participant may return. */
  readonly status: "here" | "away";
  /** The time of joining, in seconds since the Unix epoch. */
  readonly since: number;
  /** The state that the participant has set (`presence.set`). */
  readonly state: unknown;
  /** A kernel's activity: "idle", "busy", "restarting" or "dead"; else "". */
  readonly activity: string;
}

/** The specification of a bus. All fields are optional: the broker fills in what exists, or the defaults. */
export interface Spec {
  readonly type?: string;
  readonly schema?: Record<string, unknown> | null;
  readonly emits?: Record<string, unknown> | null;
  readonly retain?: "log" | "latest" | "keys";
  readonly size?: number;
  readonly filter?: string | null;
  readonly readers?: readonly string[] | null;
  readonly writers?: readonly string[] | null;
  /** The user who made the bus. Stamped by the broker. */
  readonly maker?: string;
}

export interface WriteOptions {
  /** The key to set, on a bus that retains by key. */
  readonly key?: string | null;
  /** Remove that key. Default: false. */
  readonly deleted?: boolean;
  /** False: all participants but this client receive the message. Default: true. */
  readonly echo?: boolean;
  /** Only these users receive the message. Default: all. */
  readonly to?: readonly string[] | null;
  /** Refuse the write unless this is the last offset (of the key, on a bus that retains by key; 0: none). */
  readonly expect?: number | null;
}

/** A position in a bus's history: the history's epoch, an offset, and the id of the message there ("" if unknown). */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
  readonly id: string;
  /** The offset of the message `id`, if it is not `offset` (0): messages for others followed. */
  readonly idOffset?: number | undefined;
}

/** One page of a bus's history. */
export interface Page {
  readonly type: "page";
  readonly req: number;
  readonly bus: number;
  readonly epoch: string;
  readonly through: number;
  readonly floor: number;
  readonly more: boolean;
  readonly messages: readonly Message[];
}

export type BrokerFrame =
  | { type: "welcome"; version: number; you: Participant; broker: string; limits: Record<string, number> }
  | { type: "opened"; req: number; bus: number; address: string; epoch: string; last: number; spec: Spec; cap: string }
  | {
      type: "subscribed";
      req: number;
      bus: number;
      epoch: string;
      after: number;
      last: number;
      recovered: boolean;
      skipped: number;
      fresh: boolean;
    }
  | { type: "delivery"; bus: number; write: number; message: Message }
  | { type: "advance"; bus: number; offset: number }
  | { type: "lag"; bus: number; skipped: number; resumeAfter: number }
  | Page
  | { type: "ok"; bus: number; id: number; offset: number; count: number }
  | { type: "done"; req: number }
  | { type: "error"; code: string; text: string; req: number; id: number; bus: number; details: Record<string, unknown> }
  | { type: "presence"; bus: number; full: boolean; here: readonly Seat[]; left: readonly string[] }
  | { type: "listed"; req: number; buses: readonly Record<string, unknown>[] }
  | { type: "pong"; n: number }
  | { type: "gone"; bus: number; reason: string }
  | { type: "bye"; code: string; text: string; reconnect: boolean };

// --- frames from a client -------------------------------------------------------------------------------------------

export const hello = (instance: string, client: string): Uint8Array => encode([1, VERSION, instance, client]);

export const open = (
  req: number,
  scope: string,
  name: string | null,
  spec: Spec,
  owner: string,
  cap: string,
  create: boolean,
): Uint8Array => encode([2, req, scope, name, spec, owner, cap, create]);

export const subscribe = (req: number, bus: number, { epoch, offset, id, idOffset }: Position): Uint8Array =>
  encode([3, req, bus, epoch, offset, id, idOffset ?? 0]);

export const unsubscribe = (bus: number): Uint8Array => encode([4, bus]);

export const fetchPage = (req: number, bus: number, after: number, until: number): Uint8Array => encode([5, req, bus, after, until]);

/**
 * Encodes a value that is to be written on the bus named `bus`.
 *
 * @throws TypeMismatch if MessagePack cannot carry the value.
 */
export function encodeValue(value: unknown, bus: string): Uint8Array {
  try {
    return encode(value);
  } catch (error) {
    const text = `${bus}: the value cannot be encoded: ${reason(error)}. Use JSON values, Date, or typed arrays.`;
    throw new TypeMismatch(text, { path: "$", expected: "" });
  }
}

/** `value` is encoded already. */
export function publish(bus: number, id: number, value: Uint8Array, options: WriteOptions): Uint8Array {
  const rest = [options.key ?? null, options.deleted ?? false, options.echo ?? true, options.to ?? null, options.expect ?? null];
  const defaults = [null, false, true, null, null];
  while (rest.length > 0 && rest.at(-1) === defaults[rest.length - 1]) rest.pop();
  return encode([6, bus, id, new Raw(value), ...rest]);
}

export const setPresence = (bus: number, state: unknown): Uint8Array => encode([7, bus, state]);

export const watchPresence = (bus: number, watch: boolean): Uint8Array => encode([7, bus, null, watch]);

export const deleteBus = (req: number, bus: number): Uint8Array => encode([9, req, bus]);

export const listBuses = (req: number): Uint8Array => encode([10, req]);

export const ping = (n: number): Uint8Array => encode([11, n]);

export const leave = (bus: number): Uint8Array => encode([12, bus]);

/** Joins encoded frames into one WebSocket message. */
export function join(frames: readonly Uint8Array[]): Uint8Array {
  return encode(frames.map((frame) => new Raw(frame)));
}

/** Joins encoded frames into WebSocket messages of at most `maxBytes` bytes, unless a single frame is larger. */
export function joinAll(frames: readonly Uint8Array[], maxBytes: number): Uint8Array[] {
  const batches: Uint8Array[][] = [];
  let size = Infinity;
  for (const frame of frames) {
    if (size + frame.length > maxBytes) {
      batches.push([]);
      size = MESSAGE_OVERHEAD;
    }
    batches.at(-1)?.push(frame);
    size += frame.length;
  }
  return batches.map(join);
}

// --- frames from the broker -----------------------------------------------------------------------------------------

/**
 * Decodes a WebSocket message from the broker. Frames of unknown types are left out.
 *
 * @throws ProtocolError if the message is not an array of frames.
 */
export function fromBroker(bytes: Uint8Array): BrokerFrame[] {
  try {
    const frames = decode(bytes);
    if (!Array.isArray(frames)) throw new TypeError("not an array");
    return frames.map((frame: unknown) => read(frame as Fields)).filter((frame) => frame !== null);
  } catch (error) {
    throw new ProtocolError(
      `the broker's message is not an array of ebus frames (${reason(error)}). Do both sides have the same version of ` +
        `ebus_jupyter (protocol ${VERSION})? Reload the page.`,
    );
  }
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the wire is not typed; `ebus_jupyter.core.protocol.frames` defines the fields
type Fields = any[];

/* eslint-disable @typescript-eslint/no-unsafe-assignment -- as above */
function read(frame: Fields): BrokerFrame | null {
  if (!Array.isArray(frame) || typeof frame[0] !== "number") throw new TypeError("a frame is an array that begins with a number");
  switch (frame[0]) {
    case 64: {
      const [, version, you, broker, limits = {}] = frame;
      return { type: "welcome", version, you: participant(you as Fields), broker, limits };
    }
    case 65: {
      const [, req, bus, address, epoch, last, spec = {}, cap = ""] = frame;
      return { type: "opened", req, bus, address, epoch, last, spec, cap };
    }
    case 66: {
      const [, req, bus, epoch, after, last, recovered = true, skipped = 0, fresh = false] = frame;
      return { type: "subscribed", req, bus, epoch, after, last, recovered, skipped, fresh };
    }
    case 67:
      return { type: "delivery", bus: frame[1], write: frame[3], message: message(frame) };
    case 68:
      return { type: "advance", bus: frame[1], offset: frame[2] };
    case 69:
      return { type: "lag", bus: frame[1], skipped: frame[2], resumeAfter: frame[3] };
    case 70: {
      const [, req, bus, epoch, through, floor, more, messages = []] = frame;
      return { type: "page", req, bus, epoch, through, floor, more, messages: (messages as Fields[]).map(message) };
    }
    case 71: {
      const [, bus, id, offset, count = 1] = frame;
      return { type: "ok", bus, id, offset, count };
    }
    case 72:
      return { type: "done", req: frame[1] };
    case 73: {
      const [, code, text, req = 0, id = 0, bus = 0, , details = {}] = frame;
      return { type: "error", code, text, req, id, bus, details };
    }
    case 74: {
      const [, bus, full, here = [], left = []] = frame;
      return { type: "presence", bus, full, here: (here as Fields[]).map(seat), left };
    }
    case 76:
      return { type: "listed", req: frame[1], buses: frame[2] };
    case 77:
      return { type: "pong", n: frame[1] };
    case 78:
      return { type: "gone", bus: frame[1], reason: frame[2] };
    case 79: {
      const [, code, text, reconnect = true] = frame;
      return { type: "bye", code, text, reconnect };
    }
    default:
      return null;
  }
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function participant([id, kind, user, name = "", kernelId = ""]: Fields): Participant {
  return { id, kind, user, name, kernelId };
}

function message([, , offset, id, time, who, value, key = null, deleted = false]: Fields): Message {
  const sender = participant(who as Fields);
  return { offset, id: messageId(sender, id as number), time, value, sender, key, deleted };
}

function seat([who, status, since, state = null, activity = ""]: Fields): Seat {
  return { who: participant(who as Fields), status, since, state, activity };
}

export const messageId = (sender: Participant, write: number): string => `${sender.id}-${write}`;
