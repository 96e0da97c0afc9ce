/**
 * What the link knows of one bus (`Channel`), and what it hands to the program: a `Port` for each time the bus was
 * opened, a `Request` for each thing that was asked. Plain records; `link` and `follow` hold the rules.
 */
import { isUnnamed, whereabouts } from "./address.js";
import type { EbusError } from "./errors.js";
import type { BrokerFrame, Message, Page, Seat, Spec, WriteOptions } from "./frames.js";
import { Log, type Gap } from "./log.js";

/** How a bus is asked for. `spec` holds only what the caller gave; `name` null asks for a fresh unnamed bus. */
export interface OpenParams {
  readonly scope: string;
  readonly name: string | null;
  readonly spec: Spec;
  readonly owner: string;
  readonly cap: string;
  readonly create: boolean;
}

/**
 * How to open the bus again. With all of its spec: a broker that has forgotten it makes the same one, whoever comes first.
 * One that is filtered by a kernel is only joined: made anew from here, it would take unfiltered writes.
 */
export function lasting({ address, cap, spec }: BrokerFrame & { type: "opened" }, asked: OpenParams | undefined): OpenParams {
  const { scope, owner, name } = whereabouts(address);
  const given = Object.entries(spec).filter(([field]) => field !== "maker");
  const create = (asked?.create ?? true) && !isUnnamed(name) && spec.filter !== "@owner";
  const wanted = { spec: create ? Object.fromEntries(given) : {}, create };
  if (asked && !isUnnamed(name)) return { ...asked, ...wanted };
  return { scope, name, owner, cap, ...wanted };
}

/** Who wants to hear of a port's fate. Called by the link's shell, never by the link itself. */
export interface PortListener {
  opened(): void;
  closed(error: EbusError): void;
  readable(): void;
  presence(): void;
}

/** One opening of a bus. Several ports of one bus share its channel. */
export class Port {
  /** Null until the broker has opened the bus. */
  channel: Channel | null = null;
  /** Why it is closed, once it is. */
  error: EbusError | null = null;
  /** How many readers want live messages. */
  readers = 0;
  /** What was said with `setPresence`; undefined: nothing. */
  state: unknown = undefined;
  watching = false;
  listener: PortListener | null = null;

  constructor(readonly params: OpenParams) {}

  get label(): string {
    return this.params.name ?? this.channel?.address ?? "the unnamed bus";
  }
}

export class Channel {
  /** What the broker calls the bus on this connection; null while it is not open there. */
  number: number | null = null;
  epoch: string;
  readonly log: Log<Message | Gap>;
  /** Whether live messages come: "asked" until the broker has said from where on. */
  reading: "no" | "asked" | "live" = "no";
  /** The number of the last question to subscribe. */
  asking = 0;
  /** Why this participant may not read the bus (it may write). */
  unreadable: EbusError | null = null;
  /** Whether `log` is a history that can be resumed. */
  resumable = false;
  /** Where the bus was when its messages were first asked for; null once that has been forgotten. */
  asked: { readonly epoch: string; readonly after: number } | null = null;
  /** The id of the message at `last`; "" where that is not known. */
  lastId = "";
  /** The offset after which the log began. */
  began = 0;
  /** The last offset that the broker had when it began to send. */
  target = 0;
  /** The last offset seen, messages for others included. */
  last = 0;
  /** Counts the times that what was known was replaced by another history, or by a snapshot. */
  history = 0;
  /** How many messages the last such time cost; null where nobody can know. */
  lost: number | null = 0;
  readonly ports = new Set<Port>();
  readonly seats = new Map<string, Seat>();
  /** Writes without an answer, in order. */
  readonly writes = new Map<number, Write>();
  /** Writes that wait for company before they are sent. */
  held: Write[] = [];
  /** When to ask again, after the broker could not open the bus for a while. */
  retryAt = 0;

  constructor(
    readonly address: string,
    epoch: string,
    readonly spec: Spec,
    readonly cap: string,
    readonly params: OpenParams,
  ) {
    this.epoch = epoch;
    this.log = new Log({ retain: spec.retain, size: spec.size });
  }
}

/** Settled once: `done` is called by the link's shell with an error or with the value. */
interface Request<T> {
  done: ((error: EbusError | null, value: T | undefined) => void) | null;
}

/** A write without an answer. Its value is encoded, its id is kept over every retry. */
export class Write implements Request<number> {
  done: Request<number>["done"] = null;
  constructor(
    readonly port: Port,
    readonly id: number,
    readonly value: Uint8Array,
    readonly how: WriteOptions,
  ) {}
}

/** A question for history: what is after `after` (negative: the last n), up to `until` (0: the last). */
export class Fetch implements Request<Page> {
  done: Request<Page>["done"] = null;
  readonly kind = "fetch";
  constructor(
    readonly port: Port,
    readonly after: number,
    readonly until: number,
  ) {}
}

export class Removal implements Request<null> {
  done: Request<null>["done"] = null;
  readonly kind = "remove";
  constructor(readonly port: Port) {}
}

export class Listing implements Request<Catalogue> {
  done: Request<Catalogue>["done"] = null;
  readonly kind = "list";
  readonly port = null;
}

type Catalogue = readonly Readonly<Record<string, unknown>>[];

export type Question = Fetch | Removal | Listing;
