/** Runs the scenarios that Python runs too; see `tests/vectors/README.md`. */
import { describe, expect, it } from "vitest";

import { parseAddress } from "../../src/core/address.js";
import type { ChannelHandle, Deletion, Write } from "../../src/core/channel.js";
import * as errors from "../../src/core/errors.js";
import { EbusError, Lagged } from "../../src/core/errors.js";
import type { SessionEvent } from "../../src/core/events.js";
import * as frames from "../../src/core/frames.js";
import type { BrokerFrame, Delivery, Participant, Seat } from "../../src/core/frames.js";
import { decode, encode } from "../../src/core/msgpack.js";
import { ndarray, RawArray } from "../../src/core/ndarray.js";
import { Reader, type PageSource } from "../../src/core/reader.js";
import { Replica, type Change } from "../../src/core/replica.js";
import { Session } from "../../src/core/session.js";
import { bytes, decodeMessage, encodeMessage, Fields, files, hex, layout, load, reading, type Case, type Json } from "./vectors.js";

const INSTANCE = "0".repeat(32);

function each(name: string, run: (fields: Fields) => void): void {
  it.each(load(name).cases.map((found) => [found.name, found] as [string, Case]))("%s", (_, found) => {
    reading(found, (fields) => {
      fields.take("name");
      run(fields);
    });
  });
}

it("all files are run", () => {
  expect(new Set(files)).toEqual(new Set(["frames", "values", "addresses", "errors", "replica", "session"]));
});

// --- frames ---------------------------------------------------------------------------------------------------------

/** Frames of filters, which run in kernels only. */
const KERNEL_FRAMES = ["filter_answer", "filter_ask"];

const writers: Record<string, (f: Record<string, Json>) => Uint8Array> = {
  hello: (f) => frames.hello(f.instance, f.client, f.resends),
  open: (f) => frames.open(f.req, f.scope, f.name, encode(f.spec), f.owner, f.cap, f.create),
  subscribe: (f) => frames.subscribe(f.req, f.bus, { epoch: f.epoch, offset: f.after, id: f.last_id }, f.id_offset),
  unsubscribe: (f) => frames.unsubscribe(f.bus),
  fetch: (f) => frames.fetchPage(f.req, f.bus, f.after, f.until),
  publish: ({ bus, id, value, ...options }) => frames.publish(bus, id, encode(value), frames.encodeOptions(options)),
  set_presence: (f) => (f.watch === null ? frames.setPresence(f.bus, encode(f.state)) : frames.watchPresence(f.bus, f.watch)),
  delete: (f) => frames.deleteBus(f.req, f.bus),
  list: (f) => frames.listBuses(f.req),
  ping: (f) => frames.ping(f.n),
  leave: (f) => frames.leave(f.bus),
};

const person = ({ kernelId, ...rest }: Participant) => ({ ...rest, kernel_id: kernelId });
const seat = ({ who, ...rest }: Seat) => ({ who: person(who), ...rest });
function delivery(bus: number, { id, sender, value, ...rest }: Delivery): Json {
  const [, write] = id.split("-");
  expect(id).toBe(`${sender.id}-${write}`);
  return { bus, id: Number(write), sender: person(sender), value: decode(value), ...rest };
}

/** Returns a frame as scenarios name it. A page does not read `temporary`: the class of the error states it. */
function named(frame: BrokerFrame): Json {
  const { type, ...rest } = frame;
  switch (frame.type) {
    case "welcome":
      return { welcome: { ...rest, you: person(frame.you) } };
    case "delivery":
      expect(frame.message.id).toBe(`${frame.message.sender.id}-${frame.write}`);
      return { delivery: delivery(frame.bus, frame.message) };
    case "lag":
      return { lag: { bus: frame.bus, skipped: frame.skipped, resume_after: frame.resumeAfter } };
    case "page":
      return { page: { ...rest, messages: frame.messages.map((message) => delivery(frame.bus, message)) } };
    case "presence":
      return { presence: { ...rest, here: frame.here.map(seat) } };
    case "listed": // a page reads the first page of a list
      return { listed: { ...rest, following: "", changes: false, removed: [] } };
    case "error":
      return { error: { ...rest, temporary: errors.fromWire(frame.code, "").temporary } };
    default:
      return { [type]: rest };
  }
}

describe("frames have these bytes:", () => {
  each("frames", (given) => {
    if (given.has("longer")) {
      expect(frames.fromBroker(bytes(given.take("longer"))).map(named)).toEqual(given.take("means"));
      return;
    }
    const frame = given.take("frame");
    const [[name, fields]] = Object.entries(frame) as [[string, Json]];
    const forms = [given.take("hex"), given.take("short", null)].filter((form) => form !== null);
    if (layout[name]!.from === "client") {
      for (const form of forms) expect(decodeMessage(frames.join([bytes(form)]))).toEqual([frame]);
      if (!KERNEL_FRAMES.includes(name)) expect(forms).toContain(hex(writers[name]!(fields)));
    } else {
      const meant = KERNEL_FRAMES.includes(name) ? [] : [frame];
      for (const form of forms) expect(frames.fromBroker(frames.join([bytes(form)])).map(named)).toEqual(meant);
    }
  });
});

// --- values ---------------------------------------------------------------------------------------------------------

/** Returns the value of a scenario, as a client writes it or (`read`) as it reads it. */
function valueOf(given: Json, read: boolean): unknown {
  if (Array.isArray(given)) return given.map((item) => valueOf(item, read));
  if (typeof given !== "object" || given === null) return given;
  if (!("$" in given)) {
    const found = {};
    for (const [key, value] of Object.entries(given as object))
      Object.defineProperty(found, key, { value: valueOf(value, read), enumerable: true });
    return found;
  }
  return reading(given, (fields) => {
    const kind = fields.take("$") as string;
    switch (kind) {
      case "int":
        return read ? Number(fields.take("is")) : BigInt(fields.take("is"));
      case "float":
        return { nan: NaN, inf: Infinity, "-inf": -Infinity }[fields.take("is") as string];
      case "bytes":
        return bytes(fields.take("hex"));
      case "time":
        return new Date(fields.take("is"));
      case "array": {
        const dtype = fields.take("dtype") as string;
        const shape = fields.take("shape") as number[];
        if (fields.has("hex")) return new RawArray(dtype, shape, bytes(fields.take("hex")));
        const data = (fields.take("data") as Json[]).map((item) => valueOf(item, false));
        if (dtype === "|b1") return Object.assign(Uint8Array.from(data as number[]), { shape, dtype });
        return ndarray(new ARRAYS[dtype]!(data as never[]) as Float32Array<ArrayBuffer>, shape);
      }
      default:
        throw new Error(`unknown kind of value: ${kind}`);
    }
  });
}

const ARRAYS: Record<string, new (data: never[]) => unknown> = {
  "|i1": Int8Array,
  "|u1": Uint8Array,
  "<i2": Int16Array,
  "<u2": Uint16Array,
  "<i4": Int32Array,
  "<u4": Uint32Array,
  "<i8": BigInt64Array,
  "<u8": BigUint64Array,
  "<f4": Float32Array,
  "<f8": Float64Array,
};

describe("values have these bytes:", () => {
  each("values", (given) => {
    const data = bytes(given.take("hex"));
    const value = given.take("value");
    const writes = (given.take("writers", ["python", "js"]) as string[]).includes("js");
    const page = given.take("page", value);
    const written = given.take("written", page?.hex ? page : value);
    expect(decode(data)).toStrictEqual(valueOf(page, true));
    if (writes) expect(hex(encode(valueOf(written, false)))).toBe(hex(data));
    if (value?.$ === "array") expect(hex(encode(decode(data))), "encoded again").toBe(hex(data));
  });
});

// --- addresses and errors -------------------------------------------------------------------------------------------

describe("URIs have these addresses:", () => {
  each("addresses", (given) => {
    const uri = given.take("uri") as string;
    if (given.has("refused")) {
      const code = given.take("refused");
      expect(() => parseAddress(uri)).toThrow(expect.objectContaining({ code }));
      return;
    }
    given.take("prints", null); // pages do not print URIs
    const { scope, owner, name, cap } = parseAddress(uri);
    expect({ scope, owner, bus: name, cap }).toEqual(given.some("scope", "owner", "bus", "cap"));
  });
});

describe("errors have these codes:", () => {
  const classes = errors as unknown as Record<string, new (text: string) => EbusError>;
  const listed = load("errors").cases.filter((found) => "code" in found);

  each("errors", (given) => {
    if (given.has("wire")) {
      const { code, text, details } = given.take("wire");
      const error = errors.fromWire(code, text, details);
      expect(error.name).toBe(given.take("class"));
      const { resumeAfter, ...facts } = error.details;
      const all = { code: error.code, text: error.message, ...facts, ...(resumeAfter !== undefined && { resume_after: resumeAfter }) };
      expect(all).toEqual(given.take("is"));
      return;
    }
    const error = errors.fromWire(given.take("code"), "why");
    const name = (given.given as Case).name;
    expect([error.name, error.temporary]).toEqual([name, given.take("temporary")]);
    expect(error).toBeInstanceOf(classes[name]);
    const above = given.take("above") as string | null;
    if (above) expect(Object.getPrototypeOf(classes[name])).toBe(classes[above]);
  });

  it("no other error exists", () => {
    const here = Object.entries(errors).filter(([, found]) => Object.prototype.isPrototypeOf.call(EbusError, found) || found === EbusError);
    expect(new Set(here.map(([name]) => name))).toEqual(new Set(listed.map((found) => found.name)));
  });
});

// --- replica --------------------------------------------------------------------------------------------------------

const missing = (given: Json): unknown => (given?.$ === "missing" ? undefined : given);

function replicaStep(replica: Replica, step: Record<string, Json>): void {
  const [[verb, what]] = Object.entries(step) as [[string, Json]];
  let changes: Change[] = [];
  reading(step, (fields) => {
    fields.take(verb);
    switch (verb) {
      case "write": {
        const { change, send } = replica.write(what[0], missing(what[1]));
        changes = [change];
        expect(send).toBe(fields.take("send", true));
        break;
      }
      case "accepted":
      case "refused": {
        const settled = verb === "accepted" ? replica.accepted(what[0], what[1]) : replica.refused(what);
        changes = settled.changes;
        expect(settled.send).toBe(fields.take("send", false));
        break;
      }
      case "apply":
        changes = replica.apply(what[0], what[1], missing(what[2]));
        break;
      case "begin_snapshot":
        replica.beginSnapshot();
        break;
      case "end_snapshot":
        changes = replica.endSnapshot();
        break;
      case "shown":
        expect(Object.fromEntries(replica.keys().map((key) => [key, replica.shown(key)]))).toEqual(what);
        break;
      case "offset":
        expect(Object.fromEntries(Object.keys(what).map((key) => [key, replica.offset(key)]))).toEqual(what);
        break;
      default:
        throw new Error(`unknown step ${verb}`);
    }
    const wanted = (fields.take("changes", []) as Json[]).map(([key, old, value, local]) => ({
      key,
      old: missing(old),
      value: missing(value),
      local,
    }));
    const byKey = (a: { key: string }, b: { key: string }) => (a.key < b.key ? -1 : 1);
    expect(changes.toSorted(byKey), JSON.stringify(step)).toEqual(wanted.toSorted(byKey));
  });
}

describe("replica:", () => {
  each("replica", (given) => {
    const replica = new Replica();
    for (const step of given.take("steps")) replicaStep(replica, step);
  });
});

// --- session --------------------------------------------------------------------------------------------------------

/** A session whose broker is the scenario. */
class ScriptedSession {
  readonly #session = new Session(INSTANCE);
  readonly #people = load("session").people as Record<string, Json>;
  readonly #handles = new Map<string, ChannelHandle>();
  readonly #batching = new Set<ChannelHandle>();
  readonly #readers = new Map<string, Reader>();
  readonly #reqs = new Map<string, number>();
  readonly #names = new Map<Write | Deletion, string>();
  #now = 0;
  #settled: Record<string, Json> = {};
  #closed: Record<string, string> = {};
  #connectionEnded: Json = null;

  step(step: Record<string, Json>): void {
    const [[verb, what]] = Object.entries(step) as [[string, Json]];
    const run = this.#verbs[verb];
    if (!run) throw new Error(`unknown step ${verb}`);
    if (Object.keys(step).length > 1) throw new Error(`unknown fields in ${JSON.stringify(step)}`);
    try {
      run(what);
    } catch (error) {
      if (error instanceof Error) error.message += `\nin the step ${JSON.stringify(step)}`;
      throw error;
    }
  }

  end(): void {
    const left = { sent: this.#sent(), settled: this.#settled, closed: this.#closed, connectionEnded: this.#connectionEnded };
    expect(left, "no step has expected this").toEqual({ sent: [], settled: {}, closed: {}, connectionEnded: null });
  }

  #handle(name: string): ChannelHandle {
    const handle = this.#handles.get(name);
    if (!handle) throw new Error(`no bus is named ${name}`);
    return handle;
  }

  #reader(name: string): Reader {
    const reader = this.#readers.get(name);
    if (!reader) throw new Error(`no reader is named ${name}`);
    return reader;
  }

  #sent(): Record<string, Json>[] {
    return this.#session.dataToSend(this.#now).flatMap(decodeMessage);
  }

  readonly #pages: PageSource = {
    fetch: (handle, after, until, done) => {
      this.#session.fetch(handle, after, until).done = done;
    },
  };

  readonly #verbs: Record<string, (what: Json) => void> = {
    // calls
    connection_made: (what) => {
      expect(what).toBe(true);
      this.#session.connectionMade(this.#now);
    },
    connection_lost: (what) => {
      expect(what).toBe(true);
      this.#sent();
      this.#dispatch(this.#session.connectionLost());
    },
    tick: (what) => {
      this.#now += what * 1000;
      expect(this.#session.tick(this.#now)).toBe(true);
    },
    open: (what) =>
      reading(what, (given) => {
        const [as, name, batch] = [given.take("as"), given.take("name"), given.take("batch", false)];
        const where = { scope: given.take("scope", "server"), spec: given.take("spec", {}) };
        const how = { owner: given.take("owner", ""), cap: given.take("cap", ""), create: given.take("create", true) };
        const handle = this.#session.open({ name, ...where, ...how });
        if (batch) this.#batching.add(handle);
        this.#handles.set(as, handle);
      }),
    publish: (what) =>
      reading(what, (given) => {
        const [as, handle, value] = [given.take("as"), this.#handle(given.take("bus")), encode(given.take("value"))];
        const options = given.some("key", "deleted", "echo", "to", "expect");
        this.#names.set(this.#session.publish(handle, value, this.#now, options, this.#batching.has(handle)), as);
      }),
    flush: (what) => this.#session.flush(this.#handle(what), this.#now),
    delete: (what) =>
      reading(what, (given) => {
        const as = given.take("as");
        this.#names.set(this.#session.delete(this.#handle(given.take("bus"))), as);
      }),
    leave: (what) => this.#dispatch(this.#session.leave(this.#handle(what), this.#now)),
    reader: (what) =>
      reading(what, (given) => {
        const handle = this.#handle(given.take("bus"));
        this.#session.subscribe(handle);
        const since = given.take("since") ?? undefined;
        this.#readers.set(given.take("as"), new Reader(handle, since, this.#pages, () => undefined));
      }),
    clone: (what) =>
      reading(what, (given) => {
        const original = this.#reader(given.take("of"));
        this.#readers.set(
          given.take("as"),
          original.clone(() => undefined),
        );
      }),
    watch_presence: (what) => this.#session.watchPresence(this.#handle(what)),
    set_presence: (what) =>
      reading(what, (given) => this.#session.setPresence(this.#handle(given.take("bus")), encode(given.take("state")))),
    receive_data: (what: Json[]) => {
      const message = encodeMessage(
        what.map((frame) => this.#complete(frame)),
        this.#people,
      );
      this.#dispatch(this.#session.receiveData(message, this.#now));
    },

    // expectations
    data_to_send: (what: Record<string, Json>[]) => {
      const sent = this.#sent();
      expect(sent.map((frame) => Object.keys(frame))).toEqual(what.map((frame) => Object.keys(frame)));
      for (const [i, wanted] of what.entries()) {
        const [[name, pattern]] = Object.entries(wanted) as [[string, Json]];
        const frame = sent[i]![name] as Record<string, Json>;
        for (const [field, value] of Object.entries(pattern as object)) {
          if (field === "req" && !this.#reqs.has(value)) this.#reqs.set(value, frame.req);
          expect(frame[field], `${field} of ${JSON.stringify(frame)}`).toEqual(field === "req" ? this.#reqs.get(value) : value);
        }
      }
    },
    settled: (what) => {
      expect(this.#settled).toEqual(what);
      this.#settled = {};
    },
    closed: (what) => {
      expect(this.#closed).toEqual(what);
      this.#closed = {};
    },
    connection_ended: (what) => {
      expect(this.#connectionEnded).toEqual(what);
      this.#connectionEnded = null;
    },
    read_nowait: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) expect(this.#read(this.#reader(name))).toEqual(wanted);
    },
    caught_up: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) expect(this.#reader(name).caughtUp).toBe(wanted);
    },
    position: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) {
        const { epoch, offset, id } = this.#handle(name).channel!.position;
        expect([epoch, offset, id]).toEqual(wanted);
      }
    },
    participants: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) {
        const seats = [...(this.#handle(name).channel?.participants.values() ?? [])];
        expect(seats.map(({ who, status, state }) => [who.id, status, state])).toEqual(wanted);
      }
    },
  };

  /** Fills in request numbers, and the defaults of a delivery. */
  #complete(frame: Record<string, Json>): Json {
    const [[name, found]] = Object.entries(frame) as [[string, Json]];
    const given = { ...found };
    if (typeof given.req === "string") given.req = this.#reqs.get(given.req);
    const whole = (each: Json) => ({ id: each.offset, time: 0, sender: "bob", ...each });
    if (name === "delivery") return { delivery: whole(given) };
    if (name === "page") given.messages = (given.messages ?? []).map((each: Json) => whole({ bus: given.bus, ...each }));
    return { [name]: given };
  }

  #dispatch(events: SessionEvent[]): void {
    for (const event of events) {
      switch (event.type) {
        case "write_settled":
          this.#settled[this.#names.get(event.write)!] = event.error ? event.error.code : event.offset;
          break;
        case "request_settled": {
          const name = this.#names.get(event.request);
          if (name !== undefined) this.#settled[name] = event.error ? event.error.code : "done";
          else event.request.done?.(event.error, event.value);
          break;
        }
        case "bus_closed": {
          const [name] = [...this.#handles].find(([, handle]) => handle === event.handle)!;
          this.#closed[name] = event.error.code;
          break;
        }
        case "connection_ended":
          this.#connectionEnded = { code: event.error.code, reconnect: event.reconnect };
      }
    }
  }

  #read(reader: Reader): Json[] {
    const found: Json[] = [];
    for (;;) {
      try {
        const item = reader.readNowait();
        if (!item) return found;
        const { offset, key, deleted, value } = item;
        found.push({ offset, ...(key !== null && { key }), ...(deleted ? { deleted } : { value: decode(value) }) });
      } catch (error) {
        if (error instanceof Lagged) found.push({ lagged: error.skipped, resume_after: error.resumeAfter });
        else return [...found, { error: (error as EbusError).code }];
      }
    }
  }
}

describe("session:", () => {
  each("session", (given) => {
    const session = new ScriptedSession();
    for (const step of given.take("steps")) session.step(step);
    session.end();
  });
});
