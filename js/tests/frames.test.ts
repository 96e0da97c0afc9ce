import { describe, expect, it } from "vitest";

import { encodeValue, fromBroker, type BrokerFrame } from "../src/frames.js";
import * as frames from "../src/frames.js";
import { decode, encode } from "../src/msgpack.js";
import { message } from "./broker.js";
import wire from "./wire.json";

const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const read = (name: keyof typeof wire.broker): BrokerFrame | undefined => fromBroker(frames.join([bytes(wire.broker[name])]))[0];

const kernel = { id: "ab12", kind: "kernel", user: "alice", name: "Alice", kernelId: "k1" };
const page = { id: "cd34", kind: "page", user: "bob", name: "", kernelId: "" };

describe("reads what Python's broker writes", () => {
  const meaning: Record<keyof typeof wire.broker, unknown> = {
    welcome: { type: "welcome", version: 1, you: page, broker: "b1", limits: { value_bytes: 1048576 } },
    opened: { type: "opened", req: 1, bus: 7, address: "ebus:server/votes", epoch: "e1", last: 3, spec: { retain: "keys" }, cap: "" },
    "opened with a capability": { type: "opened", address: "ebus:kernel/k1/votes", cap: "c0ffee" },
    subscribed: { type: "subscribed", req: 2, bus: 7, epoch: "e1", after: 3, last: 3, recovered: true, skipped: 0, fresh: false },
    "refused to resume": { type: "subscribed", epoch: "e2", after: 0, last: 9, recovered: false, skipped: -1, fresh: true },
    delivery: {
      type: "delivery",
      bus: 7,
      write: 1,
      message: {
        offset: 4,
        id: "ab12-1",
        time: 12.5,
        sender: kernel,
        value: { choice: "tea", n: [1, -1, 2 ** 40, 0.5, null, true] },
        key: null,
        deleted: false,
      },
    },
    removal: { type: "delivery", message: { offset: 5, sender: page, value: null, key: "speed", deleted: true } },
    advance: { type: "advance", bus: 7, offset: 6 },
    lag: { type: "lag", bus: 7, skipped: 3, resumeAfter: 9 },
    page: { type: "page", req: 3, epoch: "e1", through: 5, floor: 0, more: true, messages: [{ offset: 4, value: "x", id: "ab12-1" }] },
    ok: { type: "ok", bus: 7, id: 1, offset: 4, count: 1 },
    "ok for three": { type: "ok", count: 3 },
    done: { type: "done", req: 4 },
    error: { type: "error", code: "type_mismatch", text: "votes: expected int", req: 0, id: 5, bus: 7, details: { path: "$.n" } },
    presence: {
      type: "presence",
      full: true,
      here: [{ who: kernel, status: "here", since: 1.5, state: { typing: true }, activity: "busy" }],
      left: ["ef56"],
    },
    listed: { type: "listed", req: 5, buses: [{ name: "votes" }] },
    pong: { type: "pong", n: 1 },
    gone: { type: "gone", bus: 7, reason: "deleted" },
    bye: { type: "bye", code: "protocol", text: "too old", reconnect: false },
  };
  it.each(Object.keys(meaning) as (keyof typeof wire.broker)[])("%s", (name) => {
    expect(read(name)).toMatchObject(meaning[name] as object);
  });
});

describe("says what Python's broker reads", () => {
  const said: Record<keyof typeof wire.client, Uint8Array> = {
    hello: frames.hello("0".repeat(32), "js"),
    open: frames.open(1, "server", "votes", { size: 10 }, "", "", true),
    "open with a capability": frames.open(2, "kernel", "votes", {}, "k1", "c0ffee", false),
    "open unnamed": frames.open(3, "server", null, {}, "", "", true),
    subscribe: frames.subscribe(4, 7),
    resume: frames.subscribe(5, 7, "e1", 3, "ab12-1"),
    unsubscribe: frames.unsubscribe(7),
    fetch: frames.fetchPage(6, 7, -10, 20),
    publish: frames.publish(7, 1, encode("tea"), {}),
    "publish with everything": frames.publish(7, 2, encode({ n: 1 }), { key: "speed", deleted: true, echo: false, to: ["bob"], expect: 3 }),
    say: frames.setPresence(7, { typing: true }),
    watch: frames.watchPresence(7, true),
    remove: frames.remove(8, 7),
    list: frames.list(9),
    ping: frames.ping(1),
    leave: frames.leave(7),
  };
  // Python leaves out what is at its default only at the end; more or less of that means the same.
  const defaults: Record<number, unknown[]> = { 2: [{}, "", "", true], 3: ["", 0, ""], 5: [0, 0], 6: [null, false, true, null, null], 7: [null, null] };
  const full = (hex: Uint8Array) => {
    const frame = decode(hex) as [number, ...unknown[]];
    const rest = defaults[frame[0]] ?? [];
    const fields = { 2: 4, 3: 3, 5: 3, 6: 4, 7: 2 }[frame[0]] ?? frame.length;
    return [...frame, ...rest.slice(frame.length - fields)];
  };
  it.each(Object.keys(said) as (keyof typeof wire.client)[])("%s", (name) => {
    expect(full(said[name])).toEqual(full(bytes(wire.client[name])));
  });
});

it("reads values that Python wrote", () => {
  const value = (name: keyof typeof wire.values) => decode(bytes(wire.values[name]));
  expect(value("float32 array")).toMatchObject({ shape: [2, 3], dtype: "<f4", 5: 5 });
  expect(value("int64 array")).toMatchObject({ shape: [2], 0: 1n, 1: -1n });
  expect(value("bool array")).toMatchObject({ dtype: "|b1", 0: 1 });
  expect(value("datetime")).toEqual(new Date("2024-05-06T07:08:09.123Z"));
  expect(value("old datetime")).toEqual(new Date("1960-01-01T00:00:00Z"));
  expect(value("bytes")).toEqual(Uint8Array.of(0, 1, 2));
  expect(value("text")).toBe("grüße 😀");
  expect(value("nested")).toEqual({ a: [{}, [], "", { b: null }] });
});

it("ignores what a newer broker adds: fields at the end, and whole frames", () => {
  expect(fromBroker(message([200, "who knows"], [72, 4, "a new field"]))).toEqual([{ type: "done", req: 4 }]);
});

it("names what is no array of frames", () => {
  for (const nonsense of [message(["x"]), encode("hello"), Uint8Array.of(0x91), Uint8Array.of(0xc1)]) {
    expect(() => fromBroker(nonsense)).toThrow(/array of ebus frames.*Reload the page/s);
  }
});

it("names a value that can't travel", () => {
  expect(() => encodeValue({ f: () => 1 }, "votes")).toThrow(/votes: the value can't travel: it holds a function/);
});
