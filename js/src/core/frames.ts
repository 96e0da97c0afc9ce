/**
 * The wire protocol: MessagePack arrays that begin with the number of the frame's type.
 *
 * The specification is `ebus_jupyter.core.protocol.frames`; this module mirrors it field by field.
 *
 * One WebSocket message is an array of frames. New fields are only added at a frame's end, with a default. Receivers ignore
 * unknown fields and frames of unknown types. A value is encoded when it is written, so that a retry sends the same bytes
 * even if the program has changed its object since.
 */
import { check } from "./check.js";
import { ProtocolError, TypeMismatch } from "./errors.js";
import { decode, encode, Raw, Reader } from "./msgpack.js";
import type { Position } from "./position.js";

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

/** One accepted write, as it arrives. */
export interface Delivery {
  /** The position in the bus's order. Offsets strictly increase; they need not be contiguous. */
  readonly offset: number;
  /** Identifies the write; a retry keeps it. */
  readonly id: string;
  /** The time of acceptance by the broker's clock, in seconds since the Unix epoch. */
  readonly time: number;
  /** The value, encoded. */
  readonly value: Uint8Array;
  readonly sender: Participant;
  /** The key that the message sets, on a bus that retains by key; else null. */
  readonly key: string | null;
  /** True if the message removes that key. */
  readonly deleted: boolean;
}

/** One accepted write, as a program reads it. */
export interface Message<T = unknown> extends Omit<Delivery, "value"> {
  readonly value: T;
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

/** One page of a bus's history. */
export interface Page {
  readonly type: "page";
  readonly req: number;
  readonly bus: number;
  readonly epoch: string;
  readonly through: number;
  readonly floor: number;
  readonly more: boolean;
  readonly messages: readonly Delivery[];
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
  | { type: "delivery"; bus: number; write: number; message: Delivery }
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

const isText = (value: unknown): boolean => typeof value === "string";

/**
 * Encodes a value for the bus named `bus`.
 *
 * @throws TypeMismatch if MessagePack cannot carry the value.
 */
export function encodeValue(value: unknown, bus: string): Uint8Array {
  try {
    return encode(value);
  } catch (error) {
    throw new TypeMismatch(`${bus}: the value cannot be encoded: ${reason(error)}`, { path: "$", expected: "" });
  }
}

/**
 * Decodes the value of a message on the bus named `bus`.
 *
 * @throws TypeMismatch, with `bus`, `offset` and `sender` in its details, if JavaScript cannot hold it.
 */
export function decodeValue({ value, offset, sender }: Delivery, bus: string, freeze = false): unknown {
  try {
    return decode(value, freeze);
  } catch (error) {
    throw new TypeMismatch(`${bus}: the message ${offset} of ${sender.user} cannot be decoded: ${reason(error)}`, {
      path: "$",
      bus,
      offset,
      sender,
    });
  }
}

/** The encoded fields of a write after its value, without the defaults at their end. */
export interface Tail {
  readonly fields: number;
  readonly bytes: Uint8Array;
}

/** @throws TypeError if an option has another type than the broker reads. */
export function encodeOptions(options: WriteOptions): Tail {
  const { key = null, deleted = false, echo = true, to = null, expect = null } = options;
  check(
    (key === null || isText(key)) &&
      (to === null || (Array.isArray(to) && to.every(isText))) &&
      (expect === null || Number.isSafeInteger(expect)),
    "a wrong option of write()",
  );
  const fields = [key, Boolean(deleted as unknown), Boolean(echo as unknown), to, expect];
  const defaults = [null, false, true, null, null];
  while (fields.length > 0 && fields.at(-1) === defaults[fields.length - 1]) fields.pop();
  return { fields: fields.length, bytes: concat(fields.map((field) => encode(field))) };
}

// --- frames from a client -------------------------------------------------------------------------------------------

/** `resends`: a write that is refused for the broker's rate is sent again, and all later ones with it. */
export const hello = (instance: string, client: string, resends = true): Uint8Array => encode([1, VERSION, instance, client, resends]);

/** `spec` is encoded already. */
export function open(req: number, scope: string, name: string | null, spec: Uint8Array, owner: string, cap: string, create: boolean) {
  check([scope, name ?? "", owner, cap].every(isText), "a wrong argument of bus()");
  return encode([2, req, scope, name, new Raw(spec), owner, cap, Boolean(create as unknown)]);
}

/** `idOffset`: the offset of the message `id`, if it is not `offset` (0): messages for others followed. */
export const subscribe = (req: number, bus: number, { epoch, offset, id }: Position, idOffset = 0): Uint8Array =>
  encode([3, req, bus, epoch, offset, id, idOffset]);

export const unsubscribe = (bus: number): Uint8Array => encode([4, bus]);

export const fetchPage = (req: number, bus: number, after: number, until: number): Uint8Array => encode([5, req, bus, after, until]);

/** `value` and `tail` are encoded already. */
export function publish(bus: number, id: number, value: Uint8Array, { fields, bytes }: Tail): Uint8Array {
  return concat([Uint8Array.of(0x94 + fields, 6), encode(bus), encode(id), value, bytes]);
}

/** `state` is encoded already. */
export const setPresence = (bus: number, state: Uint8Array): Uint8Array => encode([7, bus, new Raw(state)]);

export const watchPresence = (bus: number, watch: boolean): Uint8Array => encode([7, bus, null, watch]);

export const deleteBus = (req: number, bus: number): Uint8Array => encode([9, req, bus]);

export const listBuses = (req: number): Uint8Array => encode([10, req]);

/** `n` 0: only a sign of life. Else the client has taken note of the writes that were refused for its rate. */
export const ping = (n: number): Uint8Array => encode([11, n]);

export const leave = (bus: number): Uint8Array => encode([12, bus]);

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, { length }) => size + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

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
    const reader = new Reader(bytes);
    const found = reader.list(() => read(fieldsOf(reader))).filter((frame) => frame !== null);
    if (reader.at < bytes.length) throw new RangeError("it is too long");
    return found;
  } catch (error) {
    throw new ProtocolError(`the server does not speak ebus protocol ${VERSION}: ${reason(error)}`);
  }
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the wire is not typed; `ebus_jupyter.core.protocol.frames` defines the fields
type Fields = any[];

/** The fields of the broker's frames, by type; see `BrokerFrame`. */
const FIELDS: Readonly<Record<number, string>> = {
  64: "welcome version you broker limits",
  65: "opened req bus address epoch last spec cap",
  66: "subscribed req bus epoch after last recovered skipped fresh",
  68: "advance bus offset",
  69: "lag bus skipped resumeAfter",
  70: "page req bus epoch through floor more messages",
  71: "ok bus id offset count",
  72: "done req",
  73: "error code text req id bus temporary details",
  74: "presence bus full here left",
  76: "listed req buses",
  77: "pong n",
  78: "gone bus reason",
  79: "bye code text reconnect",
};

/** The values of fields that may be missing at a frame's end. */
const DEFAULTS: Readonly<Record<string, unknown>> = {
  limits: {},
  spec: {},
  cap: "",
  recovered: true,
  skipped: 0,
  fresh: false,
  messages: [],
  count: 1,
  req: 0,
  id: 0,
  bus: 0,
  details: {},
  here: [],
  left: [],
  reconnect: true,
};

/** Reads the fields of a frame. What participants have written in it stays encoded: it may be anything. */
function fieldsOf(reader: Reader): Fields {
  return reader.list<unknown>((i, [tag]) => {
    if (tag === 67 && i === 6) return reader.raw();
    if (tag === 70 && i === 7) return reader.list(() => delivery(fieldsOf(reader)));
    if (tag === 74 && i === 3) return reader.list(() => seat(reader.list((n) => (n === 3 ? reader.raw() : reader.value()))));
    return reader.value();
  });
}

function read(fields: Fields): BrokerFrame | null {
  const [tag, bus, , write] = fields as number[];
  if (tag === 67) return { type: "delivery", bus: bus ?? 0, write: write ?? 0, message: delivery(fields) };
  check(typeof tag === "number", "a frame begins with a number");
  const [type, ...names] = FIELDS[tag ?? 0]?.split(" ") ?? [];
  if (!type) return null;
  const frame: Record<string, unknown> = { type };
  names.forEach((name, i) => (frame[name] = (fields[i + 1] as unknown) ?? DEFAULTS[name]));
  if (type === "welcome") frame.you = participant(frame.you as Fields);
  return frame as BrokerFrame;
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/* eslint-disable @typescript-eslint/no-unsafe-assignment -- as above */
function participant([id, kind, user, name = "", kernelId = ""]: Fields): Participant {
  return { id, kind, user, name, kernelId };
}

function delivery([, , offset, id, time, who, value, key = null, deleted = false]: Fields): Delivery {
  const sender = participant(who as Fields);
  return { offset, id: `${sender.id}-${id as number}`, time, value, sender, key, deleted };
}

function seat([who, status, since, state, activity = ""]: Fields): Seat {
  return { who: participant(who as Fields), status, since, state: state ? readable(state as Uint8Array) : null, activity };
}

/** A state that cannot be read counts as none. */
function readable(state: Uint8Array): unknown {
  try {
    return decode(state);
  } catch {
    return null;
  }
}
