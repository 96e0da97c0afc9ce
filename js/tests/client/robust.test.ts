/** One wrong call, value, or listener in one widget does not hurt the others on the page. */
import { encode as pack } from "@msgpack/msgpack";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Bus } from "../../src/client/bus.js";
import { connect, type Client } from "../../src/client/client.js";
import { sharedState } from "../../src/client/state.js";
import { BOB, FakeBroker, quiet } from "../fake_broker.js";

let broker: FakeBroker;
let client: Client;

beforeEach(() => {
  vi.useFakeTimers();
  broker = new FakeBroker();
  client = connect(undefined, { transport: broker.connect });
});

afterEach(async () => {
  client.close();
  await vi.advanceTimersByTimeAsync(2000);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

async function bobWrites(name: string, ...values: unknown[]): Promise<void> {
  for (const value of values) broker.write(broker.bus(name), value);
  broker.settle();
  await quiet();
}

/** A message whose value JavaScript cannot hold: an extension for arrays that holds no array. */
function poison(name: string): void {
  const bus = broker.bus(name);
  const head = pack([67, bus.number, (bus.last += 1), 99, 1000, BOB]);
  const frame = Uint8Array.of(0x97, ...head.slice(1), 0xd4, 1, 0xc0);
  broker.deliver(Uint8Array.of(0x91, ...frame));
}

describe("a wrong argument", () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;

  const calls: Record<string, (bus: Bus) => unknown> = {
    "state.set with a number as key": () => sharedState(client, "board").set(5 as never, "x"),
    "state.set of a function": () => sharedState(client, "board").set("x", () => 1),
    "write with a number as key": (bus) => bus.write(1, { key: 5 as never }),
    "write to a text": (bus) => bus.write(1, { to: "bob" as never }),
    "write of a cycle": (bus) => bus.write(cyclic),
    "stream since a word": (bus) => bus.stream({ since: "latest" as never }),
    "stream since a fraction": (bus) => bus.stream({ since: 0.5 }),
    "stream since a date": (bus) => bus.stream({ since: new Date() as never }),
    "history of a word": (bus) => bus.history("all" as never),
    "bus with a number as name": () => client.bus(5 as never),
    "bus with scope null": () => client.bus("a", { scope: null as never }),
    "bus with a schema of functions": () => client.bus("a", { schema: { parse: () => 1 } }),
    "bus with a text as flushSize": () => client.bus("a", { flushSize: "3" as never }),
    "presence of a cycle": (bus) => bus.presence.set(cyclic),
    "presence of many bytes": (bus) => bus.presence.set("x".repeat(5000)),
  };

  for (const [when, waits] of [
    ["before the connection is up", false],
    ["later", true],
  ] as const) {
    it.each(Object.entries(calls))(`%s, ${when}, is the caller's error only`, async (_, act) => {
      const bus = client.bus("innocent");
      if (waits) await bus.ready;
      await expect(async () => act(bus)).rejects.toMatchObject({ name: expect.stringMatching(/TypeError|TypeMismatch|TooLarge/) });
      expect(await bus.write("tea")).toBe(1);
      expect([client.status, broker.dials]).toEqual(["live", 1]);
    });
  }

  it("12 MB before the limits are known are refused when they are", async () => {
    const bus = client.bus("innocent");
    const large = bus.write(new Uint8Array(12 << 20));
    await expect(large).rejects.toMatchObject({ code: "too_large" });
    expect(await bus.write("tea")).toBe(1);
    expect(broker.largest).toBeLessThan(1000);
  });
});

describe("a value that cannot be decoded", () => {
  it("is skipped and reported; everything else goes on", async () => {
    const warn = vi.spyOn(console, "warn").mockReturnValue();
    const [bus, other] = [client.bus("letters"), client.bus("other")];
    const [stream, heard, errors] = [bus.stream(), [] as unknown[], [] as unknown[]];
    bus.on((value) => heard.push(value));
    other.on((value) => heard.push(value));
    client.onError((error) => errors.push(error));
    await quiet();
    await bobWrites("letters", "a");
    poison("letters");
    poison("letters");
    await bobWrites("letters", "b");
    await bobWrites("other", "c");
    expect(await stream.take(2)).toEqual(["a", "b"]);
    expect(stream.errors).toMatchObject([2, 3].map((offset) => ({ code: "type_mismatch", details: { bus: "letters", offset, sender: { user: "bob" } } }))); // prettier-ignore
    expect(heard).toEqual(["a", "b", "c"]);
    expect(errors).toHaveLength(4); // of the listener, and of the stream
    expect(warn).toHaveBeenCalledTimes(1);
    expect(client.status).toBe("live");
  });

  it("is left out of a state", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    broker.bus("board", { retain: "keys" });
    const state = sharedState(client, "board");
    await state.ready;
    poison("board");
    broker.write(broker.bus("board"), 1, { key: "a" });
    broker.settle();
    await quiet();
    expect([...state]).toEqual([["a", 1]]);
    expect(state.errors).toHaveLength(1);
  });
});

it("listeners that throw or reject are reported, and hurt nobody", async () => {
  const error = vi.spyOn(console, "error").mockReturnValue();
  const heard: unknown[] = [];
  const bus = client.bus("letters");
  bus.on(() => {
    throw new Error("mine");
  });
  bus.on(async () => {
    throw new Error("later");
  });
  bus.on((value) => heard.push(value));
  client.onStatus(() => {
    throw new Error("status");
  });
  bus.presence.on(() => {
    throw new Error("presence");
  });
  await quiet();
  await bobWrites("letters", "a");
  broker.send([74, broker.bus("letters").number, true, [[BOB, "here", 1, null, ""]], []]);
  broker.settle();
  await bobWrites("letters", "b");
  bus.presence.on(() => {
    throw new Error("at once");
  });
  expect(heard).toEqual(["a", "b"]);
  expect(error).toHaveBeenCalledTimes(6);
});

describe("writing fast", () => {
  it("waits for the broker's rate, and loses nothing", async () => {
    broker.limits = { value_bytes: 1 << 20, batch_bytes: 8 << 20, publish_rate: 1000, publish_burst: 100 };
    client = connect(undefined, { transport: broker.connect });
    const bus = client.bus<number>("letters");
    const acks = Promise.all(Array.from({ length: 500 }, (_, i) => bus.write(i)));
    await quiet();
    expect(broker.received(6)).toHaveLength(90);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await acks).toEqual(Array.from({ length: 500 }, (_, i) => i + 1));
    expect(broker.bus("letters").entries.map((entry) => entry[6])).toEqual(Array.from({ length: 500 }, (_, i) => i));
  });

  it("a loop may write more than a bus remembers without awaiting", async () => {
    const bus = client.bus<number>("letters", { size: 100_000 });
    await bus.ready;
    const acks = Promise.all(Array.from({ length: 25_000 }, (_, i) => bus.write(i)));
    expect((await acks).at(-1)).toBe(25_000);
  });

  it("flushSize alone waits for that many, or a short while", async () => {
    const bus = client.bus<number>("letters", { flushSize: 3 });
    await bus.ready;
    void bus.write(1);
    await quiet();
    expect(broker.received(6)).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(50);
    expect(broker.received(6)).toHaveLength(1);
  });
});

describe("waiting", () => {
  it("ends with a signal or a time, and leaves nothing behind", async () => {
    const bus = client.bus("letters");
    const state = sharedState(client, "board");
    await quiet();
    broker.unanswered.add(5).add(6).add(9).add(10);
    void bus.write(1).catch(() => undefined);
    const stream = bus.stream();
    const waits: Record<string, (options: { signal?: AbortSignal; timeout?: number }) => Promise<unknown>> = {
      get: (options) => stream.get(options),
      take: (options) => stream.take(2, options),
      history: (options) => bus.history(5, options),
      delete: (options) => bus.delete(options),
      buses: (options) => client.buses(options),
      begun: (options) => client.bus("late", { scope: "user" }).stream().begun(options),
      replace: (options) => sharedState(client, "later").replace("a", undefined, 1, options),
    };
    broker.unanswered.add(2);
    const timers = vi.getTimerCount();
    for (const [name, wait] of Object.entries(waits)) {
      const life = new AbortController();
      const removed = vi.spyOn(life.signal, "removeEventListener");
      const waiting = wait({ signal: life.signal, timeout: 60_000 });
      life.abort(new Error("enough"));
      await expect(waiting, name).rejects.toThrow("enough");
      expect(removed, name).toHaveBeenCalled();
      const late = expect(wait({ timeout: 10 }), name).rejects.toMatchObject({ name: "TimeoutError" });
      await vi.advanceTimersByTimeAsync(10);
      await late;
    }
    expect(vi.getTimerCount()).toBe(timers);
    state.close();
  });
});

describe("a position", () => {
  it("continues a stream on another page", async () => {
    const bus = client.bus("letters");
    bus.on(() => undefined);
    await quiet();
    await bobWrites("letters", "a", "b");
    const saved = JSON.stringify(bus.position);
    expect(saved).toBe('{"epoch":"epoch-101","offset":2,"id":"b0b-2"}');
    await bobWrites("letters", "c");
    const stream = client.bus("letters").stream({ since: JSON.parse(saved) });
    expect(await stream.get()).toBe("c");
  });

  it("of a bus that is opened once more is now, not where the first one began", async () => {
    const first = client.bus("letters").stream();
    await quiet();
    await bobWrites("letters", "a");
    const second = client.bus("letters").stream();
    await second.begun();
    await bobWrites("letters", "b");
    expect([await first.take(2), await second.get()]).toEqual([["a", "b"], "b"]);
  });

  it("of another history is lagged, then everything is read", async () => {
    await bobWrites("letters", "a", "b");
    const stream = client.bus("letters").stream({ since: { epoch: "e0", offset: 1, id: "b0b-1" } });
    await expect(stream.get()).rejects.toMatchObject({ code: "lagged", skipped: null });
    expect(await stream.take(2)).toEqual(["a", "b"]);
  });
});

it("values that are kept do not keep what they came with", async () => {
  const bus = client.bus<Uint8Array>("letters", { retain: "latest" });
  const stream = bus.stream();
  await quiet();
  const small = new Uint8Array(8);
  for (const value of [small, new Uint8Array(500_000), small]) broker.write(broker.bus("letters", {}), value);
  broker.settle();
  await quiet();
  const found = await stream.get();
  expect([found.length, found.buffer.byteLength]).toEqual([8, 8]);
});
