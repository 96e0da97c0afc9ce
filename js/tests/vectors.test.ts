/** Runs the scenarios that Python runs too; `tests/vectors/README.md` says what they mean. */
import { describe, expect, it } from "vitest";

import { parseAddress } from "../src/address.js";
import type { Port, Removal, Write } from "../src/channel.js";
import * as errors from "../src/errors.js";
import { EbusError, Lagged } from "../src/errors.js";
import * as frames from "../src/frames.js";
import type { BrokerFrame, Message, Participant, Seat } from "../src/frames.js";
import { Link, type LinkEvent } from "../src/link.js";
import { decode, encode } from "../src/msgpack.js";
import { ndarray, RawArray } from "../src/ndarray.js";
import { Reader, type Pages } from "../src/reader.js";
import { Replica, type Change } from "../src/replica.js";
import { bytes, Fields, files, heard, hex, layout, load, reading, said, type Case, type Json } from "./vectors.js";

const INSTANCE = "0".repeat(32);

function each(name: string, run: (fields: Fields) => void): void {
  it.each(load(name).cases.map((found) => [found.name, found] as [string, Case]))("%s", (_, found) => {
    reading(found, (fields) => {
      fields.take("name");
      run(fields);
    });
  });
}

it("runs every file", () => {
  expect(new Set(files)).toEqual(new Set(["frames", "values", "addresses", "errors", "replica", "link"]));
});

// --- frames ---------------------------------------------------------------------------------------------------------

/** Only kernels filter. */
const NOT_OF_PAGES = ["filter_answer", "filter_ask"];

const writers: Record<string, (f: Record<string, Json>) => Uint8Array> = {
  hello: (f) => frames.hello(f.instance, f.client),
  open: (f) => frames.open(f.req, f.scope, f.name, f.spec, f.owner, f.cap, f.create),
  subscribe: (f) => frames.subscribe(f.req, f.bus, f.epoch, f.after, f.last_id),
  unsubscribe: (f) => frames.unsubscribe(f.bus),
  fetch: (f) => frames.fetchPage(f.req, f.bus, f.after, f.until),
  publish: ({ bus, id, value, ...how }) => frames.publish(bus, id, encode(value), how),
  set_presence: (f) => (f.watch === null ? frames.setPresence(f.bus, f.state) : frames.watchPresence(f.bus, f.watch)),
  delete: (f) => frames.remove(f.req, f.bus),
  list: (f) => frames.list(f.req),
  ping: (f) => frames.ping(f.n),
  leave: (f) => frames.leave(f.bus),
};

const person = ({ kernelId, ...rest }: Participant) => ({ ...rest, kernel_id: kernelId });
const seat = ({ who, ...rest }: Seat) => ({ who: person(who), ...rest });
function delivery(bus: number, { id, sender, ...rest }: Message): Json {
  const [, write] = id.split("-");
  expect(id).toBe(`${sender.id}-${write}`);
  return { bus, id: Number(write), sender: person(sender), ...rest };
}

/** A frame, as scenarios name it. What a page has no use for is left out there: whether an error is temporary, its class says. */
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
    case "error":
      return { error: { ...rest, temporary: errors.fromWire(frame.code, "").temporary } };
    default:
      return { [type]: rest };
  }
}

describe("frames are these bytes:", () => {
  each("frames", (given) => {
    if (given.has("longer")) {
      expect(frames.fromBroker(bytes(given.take("longer"))).map(named)).toEqual(given.take("means"));
      return;
    }
    const frame = given.take("frame");
    const [[name, fields]] = Object.entries(frame) as [[string, Json]];
    const forms = [given.take("hex"), given.take("short", null)].filter((form) => form !== null);
    if (layout[name]!.from === "client") {
      for (const form of forms) expect(heard(frames.join([bytes(form)]))).toEqual([frame]);
      if (!NOT_OF_PAGES.includes(name)) expect(forms).toContain(hex(writers[name]!(fields)));
    } else {
      const meant = NOT_OF_PAGES.includes(name) ? [] : [frame];
      for (const form of forms) expect(frames.fromBroker(frames.join([bytes(form)])).map(named)).toEqual(meant);
    }
  });
});

// --- values ---------------------------------------------------------------------------------------------------------

/** The value that a scenario means: as it is written, or (`read`) as it is read. */
function valueOf(given: Json, read: boolean): unknown {
  if (Array.isArray(given)) return given.map((item) => valueOf(item, read));
  if (typeof given !== "object" || given === null) return given;
  if (!("$" in given)) {
    const found = {};
    for (const [key, value] of Object.entries(given as object)) Object.defineProperty(found, key, { value: valueOf(value, read), enumerable: true });
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
        throw new Error(`no value is of kind ${kind}`);
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

describe("values are these bytes:", () => {
  each("values", (given) => {
    const data = bytes(given.take("hex"));
    const value = given.take("value");
    const writes = (given.take("writers", ["python", "js"]) as string[]).includes("js");
    const page = given.take("page", value);
    const written = given.take("written", page?.hex ? page : value);
    expect(decode(data)).toStrictEqual(valueOf(page, true));
    if (writes) expect(hex(encode(valueOf(written, false)))).toBe(hex(data));
    if (value?.$ === "array") expect(hex(encode(decode(data))), "and it travels on unchanged").toBe(hex(data));
  });
});

// --- addresses and errors -------------------------------------------------------------------------------------------

describe("URIs name buses:", () => {
  each("addresses", (given) => {
    const uri = given.take("uri") as string;
    if (given.has("refused")) {
      const code = given.take("refused");
      expect(() => parseAddress(uri)).toThrow(expect.objectContaining({ code }));
      return;
    }
    given.take("prints", null); // a page prints none: it is told the URI of what it opens
    const { scope, owner, name, cap } = parseAddress(uri);
    expect({ scope, owner, bus: name, cap }).toEqual(given.some("scope", "owner", "bus", "cap"));
  });
});

describe("errors have their codes:", () => {
  const classes = errors as unknown as Record<string, new (text: string) => EbusError>;
  const told = load("errors").cases.filter((found) => "code" in found);

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

  it("and there is no other", () => {
    const here = Object.entries(errors).filter(([, found]) => Object.prototype.isPrototypeOf.call(EbusError, found) || found === EbusError);
    expect(new Set(here.map(([name]) => name))).toEqual(new Set(told.map((found) => found.name)));
  });
});

// --- a shared state -------------------------------------------------------------------------------------------------

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
        expect(send).toBe(fields.take("sends", true));
        break;
      }
      case "accepted":
      case "refused": {
        const [key, offset] = verb === "accepted" ? what : [what, null];
        const { changes: told, send } = replica.acked(key, offset);
        changes = told;
        expect(send).toBe(fields.take("sends", false));
        break;
      }
      case "arrives":
        changes = replica.apply(what[0], what[1], missing(what[2]));
        break;
      case "snapshot":
        replica.beginSnapshot();
        for (const [key, offset, value] of what) changes.push(...replica.apply(key, offset, missing(value)));
        changes.push(...replica.endSnapshot());
        break;
      case "snapshot_begins":
        replica.beginSnapshot();
        break;
      case "snapshot_ends":
        changes = replica.endSnapshot();
        break;
      case "shows":
        expect(Object.fromEntries(replica.keys().map((key) => [key, replica.shown(key)]))).toEqual(what);
        break;
      case "offsets":
        expect(Object.fromEntries(Object.keys(what).map((key) => [key, replica.offset(key)]))).toEqual(what);
        break;
      default:
        throw new Error(`nobody knows the step ${verb}`);
    }
    const wanted = (fields.take("changes", []) as Json[]).map(([key, old, value, local]) => ({ key, old: missing(old), value: missing(value), local }));
    const byKey = (a: { key: string }, b: { key: string }) => (a.key < b.key ? -1 : 1);
    expect(changes.toSorted(byKey), JSON.stringify(step)).toEqual(wanted.toSorted(byKey));
  });
}

describe("copies of a shared state:", () => {
  each("replica", (given) => {
    const replica = new Replica();
    for (const step of given.take("steps")) replicaStep(replica, step);
  });
});

// --- a client -------------------------------------------------------------------------------------------------------

/** A client whose broker is a scenario. */
class Scripted {
  readonly #link = new Link(INSTANCE);
  readonly #people = load("link").people as Record<string, Json>;
  readonly #ports = new Map<string, Port>();
  readonly #holds = new Set<Port>();
  readonly #readers = new Map<string, Reader>();
  readonly #reqs = new Map<string, number>();
  readonly #asked = new Map<Write | Removal, string>();
  #now = 0;
  #answers: Record<string, Json> = {};
  #ended: Record<string, string> = {};
  #goodbye: Json = null;

  step(step: Record<string, Json>): void {
    const [[verb, what]] = Object.entries(step) as [[string, Json]];
    const does = this.#verbs[verb];
    if (!does) throw new Error(`nobody knows the step ${verb}`);
    if (Object.keys(step).length > 1) throw new Error(`nobody reads the rest of ${JSON.stringify(step)}`);
    try {
      does(what);
    } catch (error) {
      if (error instanceof Error) error.message += `\nin the step ${JSON.stringify(step)}`;
      throw error;
    }
  }

  end(): void {
    expect({ said: this.#said(), answers: this.#answers, ended: this.#ended, goodbye: this.#goodbye }, "no step told of this").toEqual({
      said: [],
      answers: {},
      ended: {},
      goodbye: null,
    });
  }

  #port(name: string): Port {
    const port = this.#ports.get(name);
    if (!port) throw new Error(`nobody has opened ${name}`);
    return port;
  }

  #reader(name: string): Reader {
    const reader = this.#readers.get(name);
    if (!reader) throw new Error(`nobody is the reader ${name}`);
    return reader;
  }

  #said(): Record<string, Json>[] {
    return this.#link.take().flatMap(heard);
  }

  readonly #pages: Pages = {
    fetch: (port, after, until, done) => Object.assign(this.#link.fetch(port, after, until), { done }),
  };

  readonly #verbs: Record<string, (what: Json) => void> = {
    // what the client does
    connect: (what) => {
      expect(what).toBe(true);
      this.#link.opened(0);
    },
    lose: (what) => {
      expect(what).toBe(true);
      this.#said();
      this.#happened(this.#link.lost());
    },
    passes: (what) => {
      this.#now += what * 1000;
      expect(this.#link.tick(this.#now)).toBe(true);
    },
    open: (what) =>
      reading(what, (given) => {
        const [as, name, hold] = [given.take("as"), given.take("name"), given.take("hold", false)];
        const where = { scope: given.take("scope", "server"), spec: given.take("spec", {}) };
        const how = { owner: given.take("owner", ""), cap: given.take("cap", ""), create: given.take("create", true) };
        const port = this.#link.open({ name, ...where, ...how });
        if (hold) this.#holds.add(port);
        this.#ports.set(as, port);
      }),
    write: (what) =>
      reading(what, (given) => {
        const [as, port, value] = [given.take("as"), this.#port(given.take("bus")), encode(given.take("value"))];
        const how = given.some("key", "deleted", "echo", "to", "expect");
        this.#asked.set(this.#link.publish(port, value, how, this.#holds.has(port)), as);
      }),
    flush: (what) => this.#link.release(this.#port(what)),
    delete: (what) =>
      reading(what, (given) => {
        const as = given.take("as");
        this.#asked.set(this.#link.remove(this.#port(given.take("bus"))), as);
      }),
    leave: (what) => this.#happened(this.#link.close(this.#port(what))),
    reader: (what) =>
      reading(what, (given) => {
        const port = this.#port(given.take("bus"));
        this.#link.read(port);
        this.#readers.set(given.take("as"), new Reader(port, given.take("since") ?? undefined, this.#pages, () => undefined));
      }),
    clone: (what) =>
      reading(what, (given) => {
        this.#readers.set(
          given.take("as"),
          this.#reader(given.take("of")).clone(() => undefined),
        );
      }),
    watch: (what) => this.#link.watch(this.#port(what)),
    say: (what) => reading(what, (given) => this.#link.say(this.#port(given.take("bus")), given.take("state"))),

    // what travels
    says: (what: Record<string, Json>[]) => {
      const found = this.#said();
      expect(found.map((frame) => Object.keys(frame))).toEqual(what.map((frame) => Object.keys(frame)));
      for (const [i, wanted] of what.entries()) {
        const [[name, pattern]] = Object.entries(wanted) as [[string, Json]];
        const frame = found[i]![name] as Record<string, Json>;
        for (const [field, value] of Object.entries(pattern as object)) {
          if (field === "req" && !this.#reqs.has(value)) this.#reqs.set(value, frame.req);
          expect(frame[field], `${field} of ${JSON.stringify(frame)}`).toEqual(field === "req" ? this.#reqs.get(value) : value);
        }
      }
    },
    hears: (what: Json[]) => this.#happened(this.#link.receive(said(what.map((frame) => this.#completed(frame)), this.#people), this.#now)), // prettier-ignore

    // what has come of it
    answers: (what) => {
      expect(this.#answers).toEqual(what);
      this.#answers = {};
    },
    ended: (what) => {
      expect(this.#ended).toEqual(what);
      this.#ended = {};
    },
    goodbye: (what) => {
      expect(this.#goodbye).toEqual(what);
      this.#goodbye = null;
    },
    reads: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) expect(this.#read(this.#reader(name))).toEqual(wanted);
    },
    caught_up: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) expect(this.#reader(name).caughtUp).toBe(wanted);
    },
    seats: (what: Record<string, Json>) => {
      for (const [name, wanted] of Object.entries(what)) {
        const seats = [...(this.#port(name).channel?.seats.values() ?? [])];
        expect(seats.map(({ who, status, state }) => [who.id, status, state])).toEqual(wanted);
      }
    },
  };

  #completed(frame: Record<string, Json>): Json {
    const [[name, found]] = Object.entries(frame) as [[string, Json]];
    const given = { ...found };
    if (typeof given.req === "string") given.req = this.#reqs.get(given.req);
    const whole = (each: Json) => ({ id: each.offset, time: 0, sender: "bob", ...each });
    if (name === "delivery") return { delivery: whole(given) };
    if (name === "page") given.messages = (given.messages ?? []).map((each: Json) => whole({ bus: given.bus, ...each }));
    return { [name]: given };
  }

  #happened(events: LinkEvent[]): void {
    for (const event of events) {
      if (event.type === "settled") {
        const { request, error, value } = event;
        const as = this.#asked.get(request as Write | Removal);
        if (as !== undefined) this.#answers[as] = error ? error.code : (value ?? "done");
        else request.done?.(error, value as never);
      } else if (event.type === "closed") {
        const [name] = [...this.#ports].find(([, port]) => port === event.port)!;
        this.#ended[name] = event.error.code;
      } else if (event.type === "bye") {
        this.#goodbye = { code: event.error.code, again: event.again };
      }
    }
  }

  #read(reader: Reader): Json[] {
    const found: Json[] = [];
    for (;;) {
      try {
        const item = reader.read();
        if (!item) return found;
        const about = item.key === null ? { at: item.offset } : { at: item.offset, key: item.key };
        found.push(item.deleted ? { ...about, removed: true } : { ...about, is: item.value });
      } catch (error) {
        if (error instanceof Lagged) found.push({ lagged: error.skipped, after: error.resumeAfter });
        else return [...found, { ends: (error as EbusError).code }];
      }
    }
  }
}

describe("a client and its readers:", () => {
  each("link", (given) => {
    const client = new Scripted();
    for (const step of given.take("steps")) client.step(step);
    client.end();
  });
});
