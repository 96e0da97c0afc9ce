/**
 * A broker for tests: a small subset of `ebus_jupyter.core.broker`, for one client, over function calls. Its frames travel
 * when `settle()` is called, so that a test decides the order of events.
 */
import { decode, encode } from "@msgpack/msgpack";

import type { Connect, Listener } from "../src/transports/base.js";

type Fields = any[]; // eslint-disable-line @typescript-eslint/no-explicit-any

export interface FakeBus {
  address: string;
  number: number;
  epoch: string;
  spec: Record<string, unknown>;
  last: number;
  floor: number;
  entries: Fields[];
}

export const ALICE: Fields = ["a11ce", "page", "alice", "Alice", ""];
export const BOB: Fields = ["b0b", "kernel", "bob", "Bob", "k1"];

/** One WebSocket message: an array of frames. */
export const message = (...frames: Fields[]): Uint8Array => encode(frames);

/** Returns the frames of a WebSocket message. */
export const framesOf = (bytes: Uint8Array): Fields[] => decode(bytes) as Fields[];

export class FakeBroker {
  readonly buses = new Map<string, FakeBus>();
  /** All received frames, in order. */
  readonly frames: Fields[] = [];
  /** The number of connection attempts. */
  dials = 0;
  /** False: connections are refused. */
  reachable = true;
  /** Frames of these types are received, but not answered. */
  readonly unanswered = new Set<number>();
  /** The limits that it states. */
  limits: Record<string, number> = { value_bytes: 1 << 20, batch_bytes: 8 << 20 };
  /** The size of the largest message that was received. */
  largest = 0;
  /** Returns another answer to a publish than its acceptance. */
  refuse: ((publish: Fields) => Fields | null) | null = null;
  #conn: { listener: Listener; subscribed: Set<number>; out: Fields[] } | null = null;
  #accepted = new Map<number, number>();
  #numbers = 100;

  readonly connect: Connect = (listener) => {
    this.dials += 1;
    const conn = { listener, subscribed: new Set<number>(), out: [] as Fields[] };
    if (this.reachable) {
      queueMicrotask(() => {
        this.#conn = conn;
        listener.opened();
      });
    } else {
      queueMicrotask(() => listener.closed(null));
    }
    return {
      send: (bytes) => {
        this.largest = Math.max(this.largest, bytes.length);
        for (const frame of framesOf(bytes)) {
          this.frames.push(frame);
          if (this.#conn === conn && !this.unanswered.has(frame[0] as number)) this.answer(frame);
        }
        queueMicrotask(() => this.settle());
      },
      close: () => {
        if (this.#conn === conn) this.#conn = null;
      },
    };
  };

  get connected(): boolean {
    return this.#conn !== null;
  }

  /** Returns the received frames of this type. */
  received(tag: number): Fields[] {
    return this.frames.filter((frame) => frame[0] === tag);
  }

  /** Breaks the connection. */
  cut(): void {
    const conn = this.#conn;
    this.#conn = null;
    conn?.listener.closed(null);
  }

  /** Sends the outgoing frames as one message. */
  settle(): void {
    if (!this.#conn || this.#conn.out.length === 0) return;
    this.#conn.listener.message(message(...this.#conn.out.splice(0)));
  }

  /** Sends a message as it is. */
  deliver(bytes: Uint8Array): void {
    this.#conn?.listener.message(bytes);
  }

  send(...frames: Fields[]): void {
    this.#conn?.out.push(...frames);
  }

  bus(name: string, spec: Record<string, unknown> = {}): FakeBus {
    const address = `ebus:server/${name}`;
    let bus = this.buses.get(address);
    if (!bus) {
      bus = { address, number: (this.#numbers += 1), epoch: `epoch-${this.#numbers}`, spec, last: 0, floor: 0, entries: [] };
      this.buses.set(address, bus);
    }
    return bus;
  }

  /** Writes as another participant; the client receives the message if it has subscribed. */
  write(bus: FakeBus, value: unknown, how: { sender?: Fields; id?: number; key?: string | null; deleted?: boolean } = {}): number {
    const { sender = BOB, id = bus.last + 1, key = null, deleted = false } = how;
    const entry = [67, bus.number, (bus.last += 1), id, 1000 + bus.last, sender, value, key, deleted];
    const size = (bus.spec.size as number | undefined) ?? 1000;
    if (bus.spec.retain === "keys") bus.entries = bus.entries.filter((other) => other[7] !== key);
    if (bus.spec.retain === "latest") bus.entries = [];
    bus.entries.push(entry);
    if (bus.spec.retain !== "keys" && bus.entries.length > size) bus.floor = bus.entries.shift()?.[2] as number;
    if (this.#conn?.subscribed.has(bus.number)) this.send(entry);
    return bus.last;
  }

  /** Loses all buses and answers, as a restart without storage does. */
  forget(): void {
    this.buses.clear();
    this.#accepted.clear();
  }

  answer(frame: Fields): void {
    const conn = this.#conn;
    if (!conn) return;
    const [tag, ...rest] = frame;
    switch (tag) {
      case 1:
        return this.send([64, 1, ALICE, "broker", this.limits]);
      case 2: {
        const [req, scope, name, spec] = rest;
        const bus = this.bus(String(name), spec as Record<string, unknown>);
        bus.address = `ebus:${scope as string}/${name as string}`;
        return this.send([65, req, bus.number, bus.address, bus.epoch, bus.last, bus.spec, ""]);
      }
      case 3: {
        const [req, number, epoch = "", after = 0, lastId = ""] = rest;
        const bus = this.#byNumber(number as number);
        conn.subscribed.add(bus.number);
        const known = bus.entries.find((entry) => entry[2] === after);
        const isOurs = epoch === bus.epoch && after <= bus.last && (!lastId || !known || idOf(known) === lastId);
        if (!epoch) return this.send([66, req, number, bus.epoch, bus.last, bus.last]);
        const whole = isOurs && (after as number) >= bus.floor;
        const from = whole ? (after as number) : bus.floor;
        const skipped = isOurs ? from - (after as number) : -1;
        this.send([
          66,
          req,
          number,
          bus.epoch,
          from,
          bus.last,
          whole,
          whole ? 0 : skipped,
          !isOurs || (!whole && bus.spec.retain === "keys"),
        ]);
        return this.send(...bus.entries.filter((entry) => entry[2] > from));
      }
      case 4:
        return void conn.subscribed.delete(rest[0] as number);
      case 5: {
        const [req, number, after, until] = rest as number[];
        const bus = this.#byNumber(number!);
        const end = until === 0 ? bus.last : until!;
        const upTo = bus.entries.filter((entry) => entry[2] <= end);
        const found = after! < 0 ? upTo.slice(after) : upTo.filter((entry) => entry[2] > Math.max(after!, bus.floor));
        const page = found.slice(0, 3);
        const more = page.length < found.length;
        return this.send([70, req, number, bus.epoch, more ? page.at(-1)?.[2] : end, bus.floor, more, page]);
      }
      case 6: {
        const [number, id, value, key = null, deleted = false, , , expect = null] = rest;
        const bus = this.#byNumber(number as number);
        const refusal = this.refuse?.(frame);
        if (refusal) return this.send(refusal);
        let offset = this.#accepted.get(id as number);
        const actual =
          (key === null ? bus.last : (bus.entries.find((entry) => entry[7] === key && !entry[8])?.[2] as number | undefined)) ?? 0;
        if (offset === undefined && expect !== null && actual !== expect) {
          return this.send([73, "conflict", "someone wrote first", 0, id, number, false, { actual }]);
        }
        offset ??= this.write(bus, value, { sender: ALICE, id: id as number, key: key as string | null, deleted: deleted as boolean });
        this.#accepted.set(id as number, offset);
        return this.send([71, number, id, offset]);
      }
      case 9: {
        const [req, number] = rest as number[];
        const bus = this.#byNumber(number!);
        this.buses.delete(`ebus:server/${bus.address.split("/").at(-1) ?? ""}`);
        return this.send([78, number, "alice has deleted it"], [72, req]);
      }
      case 10:
        return this.send([76, rest[0], [...this.buses.keys()].map((address) => ({ address }))]);
      case 11:
        return this.send([77, rest[0]]);
    }
  }

  #byNumber(number: number): FakeBus {
    const found = [...this.buses.values()].find((bus) => bus.number === number);
    if (!found) throw new Error(`the client has invented the bus ${number}`);
    return found;
  }
}

function idOf(entry: Fields): string {
  return `${(entry[5] as Fields)[0] as string}-${entry[3] as number}`;
}

/** Lets everything that is under way arrive. */
export async function quiet(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}
