/** Buses, streams and presence of a page, with a broker in the same process. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { connect, type Client } from "../../src/client/client.js";
import { Lagged, type EbusError } from "../../src/core/errors.js";
import type { Stream } from "../../src/client/stream.js";
import { ALICE, BOB, FakeBroker, quiet } from "../fake_broker.js";

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
});

/** Another participant writes, and the messages arrive. */
async function bobWrites(name: string, ...values: unknown[]): Promise<void> {
  for (const value of values) broker.write(broker.bus(name), value);
  broker.settle();
  await quiet();
}

async function take<T>(stream: Stream<T>, n: number): Promise<T[]> {
  const found: T[] = [];
  while (found.length < n) {
    const { done, value } = await stream.next();
    if (done) break;
    found.push(value);
  }
  return found;
}

describe("stream get and take", () => {
  it("return the next value, and the next n", async () => {
    const stream = client.bus("letters").stream();
    await quiet();
    void bobWrites("letters", "a", "b", "c", "d");
    expect(await stream.get()).toBe("a");
    expect(await stream.take(2, { timeout: 1000 })).toEqual(["b", "c"]);
    expect(vi.getTimerCount()).toBe(1); // the connection's timer
  });

  it("a timeout loses no value", async () => {
    const stream = client.bus("letters").stream();
    const late = stream.get({ timeout: 500 });
    void vi.advanceTimersByTimeAsync(500);
    await expect(late).rejects.toMatchObject({ name: "TimeoutError" });
    await bobWrites("letters", "a");
    expect(await stream.get()).toBe("a");
  });

  it("reject when the stream has ended", async () => {
    const stream = client.bus("letters").stream();
    const waiting = stream.get();
    stream.close();
    await expect(waiting).rejects.toMatchObject({ code: "closed" });
    await expect(stream.take(1)).rejects.toMatchObject({ code: "closed" });
  });

  it("a clone continues independently from the same position", async () => {
    const bus = client.bus("letters");
    const stream = bus.stream({ since: "start" });
    await bobWrites("letters", "a", "b", "c");
    expect(await stream.get()).toBe("a");
    const twin = stream.clone();
    expect(await stream.take(2)).toEqual(["b", "c"]);
    stream.close();
    await bobWrites("letters", "d");
    expect(await twin.take(3)).toEqual(["b", "c", "d"]);
    expect(await stream.clone().next()).toMatchObject({ done: true });
    twin.close();
    await quiet();
    expect(broker.received(4)).toHaveLength(1);
  });

  it("a clone in the middle of history reads all of it", async () => {
    for (const value of "abcdefgh") broker.write(broker.bus("letters"), value);
    const stream = client.bus("letters").stream({ since: "start" });
    expect(await stream.get()).toBe("a");
    const twin = stream.clone();
    const rest = ["b", "c", "d", "e", "f", "g", "h"];
    expect([await stream.take(7), await twin.take(7)]).toEqual([rest, rest]);
  });
});

describe("write", () => {
  it("resolves with the offset, and reaches the writer too", async () => {
    const bus = client.bus("votes");
    const stream = bus.messages();
    expect(await bus.write({ choice: "tea" })).toBe(1);
    const [message] = await take(stream, 1);
    expect(message).toMatchObject({ offset: 1, id: "a11ce-1", value: { choice: "tea" }, sender: { kind: "page", user: "alice" } });
  });

  it("rejects with a named error", async () => {
    broker.refuse = (frame) => [73, "type_mismatch", "expected float at $.weight", 0, frame[2], frame[1], false, { path: "$.weight" }];
    const refused = client.bus("votes").write({ weight: "much" });
    await expect(refused).rejects.toMatchObject({ name: "TypeMismatch", details: { path: "$.weight" } });
    await expect(client.bus("votes").write(() => 1)).rejects.toMatchObject({ code: "type_mismatch", message: /a function/ });
  });

  it("waits for the broker, and is accepted once despite retries", async () => {
    const bus = client.bus("votes");
    await bus.ready;
    broker.unanswered.add(6);
    const answer = bus.write("tea");
    await quiet();
    broker.unanswered.clear();
    broker.cut();
    await vi.advanceTimersByTimeAsync(200);
    await quiet();
    expect(await answer).toBe(1);
    expect(broker.received(6).map((frame) => frame[2])).toEqual([1, 1]);
    expect(broker.bus("votes").entries).toHaveLength(1);
  });

  it("rejects when the bus cannot be opened", async () => {
    broker.unanswered.add(2);
    const bus = client.bus("votes");
    const answer = bus.write("tea");
    await quiet();
    broker.send([73, "no_such_bus", "not within your reach", broker.received(2)[0]![1]]);
    broker.settle();
    await expect(answer).rejects.toMatchObject({ code: "no_such_bus" });
    await expect(bus.ready).rejects.toMatchObject({ code: "no_such_bus" });
    expect(await bus.closed).toMatchObject({ code: "no_such_bus" });
  });

  it("batches by count and by interval", async () => {
    const bus = client.bus("strokes", { flushSize: 3, flushInterval: 50 });
    await bus.ready;
    void bus.write(1);
    await vi.advanceTimersByTimeAsync(40);
    void bus.write(2); // does not extend the interval
    expect(broker.received(6)).toEqual([]);
    await vi.advanceTimersByTimeAsync(10);
    expect(broker.received(6)).toHaveLength(2);
    for (const value of [3, 4, 5]) void bus.write(value);
    await quiet();
    expect(broker.received(6)).toHaveLength(5);
    void bus.write(6);
    await bus.flush();
    expect(broker.bus("strokes").last).toBe(6);
  });
});

describe("stream", () => {
  it("begins now or in the past, without gap or overlap", async () => {
    for (const value of "abcdefgh") broker.write(broker.bus("letters"), value);
    const bus = client.bus("letters");
    const streams = ["start" as const, 3, -2, undefined].map((since) => bus.stream({ since }));
    await quiet();
    await bobWrites("letters", "i", "j");
    const read = await Promise.all([take(streams[0]!, 10), take(streams[1]!, 7), take(streams[2]!, 4), take(streams[3]!, 2)]);
    expect(read.map((letters) => letters.join(""))).toEqual(["abcdefghij", "defghij", "ghij", "ij"]);
  });

  it("fetches pages of history as they are read", async () => {
    for (const value of "abcdefgh") broker.write(broker.bus("letters"), value);
    const stream = client.bus("letters").stream({ since: "start" });
    expect(await take(stream, 3)).toEqual(["a", "b", "c"]);
    expect(broker.received(5)).toHaveLength(1);
    expect(await take(stream, 5)).toEqual(["d", "e", "f", "g", "h"]);
    expect(broker.received(5)).toHaveLength(3);
  });

  it("continues across a reconnect without a gap", async () => {
    const stream = client.bus("letters").stream();
    await quiet();
    await bobWrites("letters", "a");
    broker.cut();
    for (const value of "bc") broker.write(broker.bus("letters"), value);
    await vi.advanceTimersByTimeAsync(200);
    await bobWrites("letters", "d");
    expect(await take(stream, 4)).toEqual(["a", "b", "c", "d"]);
  });

  it("begun resolves when all later writes are received", async () => {
    broker.unanswered.add(3); // the bus opens, the subscription stays under way
    const bus = client.bus("letters");
    const reported: string[] = [];
    const stream = bus.stream();
    void stream.begun().then((it) => reported.push(it === stream ? "begun" : "another"));
    await bus.ready;
    await quiet();
    expect(reported).toEqual([]);
    broker.unanswered.clear();
    broker.cut();
    await vi.advanceTimersByTimeAsync(2000);
    expect(reported).toEqual(["begun"]);
    await bobWrites("letters", "a");
    expect(await (await stream.begun()).get()).toBe("a");
  });

  it("begun resolves for streams that will never receive", async () => {
    broker.reachable = false;
    const bus = client.bus("letters");
    const [closed, lost] = [bus.stream(), bus.stream()];
    const waiting = [closed.begun(), lost.begun()];
    closed.close();
    bus.close();
    expect(await Promise.all(waiting)).toEqual([closed, lost]);
    expect(await lost.next()).toMatchObject({ done: true });
  });

  it("reports messages missed while disconnected, and continues", async () => {
    const stream = client.bus("letters", { size: 2 }).stream();
    await quiet();
    await bobWrites("letters", "a");
    expect(await take(stream, 1)).toEqual(["a"]);
    broker.cut();
    for (const value of "bcdef") broker.write(broker.bus("letters"), value);
    await vi.advanceTimersByTimeAsync(200);
    await expect(stream.next()).rejects.toMatchObject({ code: "lagged", skipped: 3, resumeAfter: 4 });
    expect(await take(stream, 2)).toEqual(["e", "f"]);
  });

  it("reports another history", async () => {
    const stream = client.bus("letters").stream();
    await quiet();
    await bobWrites("letters", "a", "b");
    expect(await take(stream, 2)).toEqual(["a", "b"]);
    broker.cut();
    broker.forget();
    broker.write(broker.bus("letters"), "new");
    await vi.advanceTimersByTimeAsync(200);
    await expect(stream.next()).rejects.toMatchObject({ code: "lagged", skipped: null });
    expect(await take(stream, 1)).toEqual(["new"]);
  });

  it("a slow stream lags without affecting others", async () => {
    const bus = client.bus("letters", { size: 3 });
    const [slow, quick] = [bus.stream(), bus.stream()];
    const received: unknown[] = [];
    bus.on((value) => received.push(value));
    await quiet();
    for (const value of "abcde") {
      await bobWrites("letters", value);
      expect(await take(quick, 1)).toEqual([value]);
    }
    await expect(slow.next()).rejects.toMatchObject({ skipped: 2, resumeAfter: 2 });
    expect(await take(slow, 3)).toEqual(["c", "d", "e"]);
    expect(received).toEqual(["a", "b", "c", "d", "e"]);
  });

  it('returns only the newest value of a "latest" bus', async () => {
    const stream = client.bus("speed", { retain: "latest" }).stream();
    await quiet();
    await bobWrites("speed", 1, 2, 3);
    expect(await take(stream, 1)).toEqual([3]);
  });

  it("reports messages missed before the first page", async () => {
    const letters = broker.bus("letters", { size: 2 });
    for (const value of "abcde") broker.write(letters, value);
    const bus = client.bus("letters");
    await expect(bus.stream({ since: 1 }).next()).rejects.toMatchObject({ skipped: 2, resumeAfter: 3 });
    expect(await take(bus.stream({ since: "start" }), 2)).toEqual(["d", "e"]);
    await expect(bus.stream({ since: 99 }).next()).rejects.toMatchObject({ skipped: null });
  });

  it("ends with its signal, a break, or the bus", async () => {
    const controller = new AbortController();
    const bus = client.bus("letters");
    const [first, second, third] = [bus.stream({ signal: controller.signal }), bus.stream(), bus.stream()];
    const waiting = first.next();
    controller.abort();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await quiet();
    await bobWrites("letters", "a");
    for await (const letter of second) {
      expect(letter).toBe("a");
      break;
    }
    expect(await second.next()).toMatchObject({ done: true });
    bus.close();
    expect(await third.next()).toMatchObject({ done: true });
    expect(await bus.stream({ signal: AbortSignal.abort() }).next()).toMatchObject({ done: true });
    await quiet();
    expect(broker.received(12)).toHaveLength(1);
  });

  it("rejects with the reason for the end, after all messages", async () => {
    const stream = client.bus("letters").stream();
    await quiet();
    await bobWrites("letters", "a");
    broker.send([78, broker.bus("letters").number, "its kernel was shut down"]);
    broker.settle();
    expect(await take(stream, 1)).toEqual(["a"]);
    await expect(stream.next()).rejects.toMatchObject({ code: "closed", details: { reason: "its kernel was shut down" } });
    expect(await stream.next()).toMatchObject({ done: true });
  });

  it("resolves concurrent next calls in order", async () => {
    const stream = client.bus("letters").stream();
    const waiting = [stream.next(), stream.next(), stream.next()];
    await quiet();
    await bobWrites("letters", "a", "b", "c");
    expect((await Promise.all(waiting)).map(({ value }) => value)).toEqual(["a", "b", "c"]);
  });
});

describe("listener", () => {
  it("receives messages in order until it is removed", async () => {
    const bus = client.bus<string>("letters");
    const [received, senders]: [string[], string[]] = [[], []];
    const off = bus.on((letter) => received.push(letter));
    const controller = new AbortController();
    bus.onMessage(({ sender }) => senders.push(sender.user), { signal: controller.signal });
    await quiet();
    await bobWrites("letters", "a");
    controller.abort();
    await bobWrites("letters", "b");
    off();
    await bobWrites("letters", "c");
    expect([received, senders]).toEqual([["a", "b"], ["bob"]]);
    expect(broker.received(4)).toHaveLength(1); // no reader is left
  });

  it("receives history, and reports missed messages", async () => {
    const letters = broker.bus("letters", { size: 2 });
    for (const value of "abcd") broker.write(letters, value);
    const [received, errors]: [unknown[], EbusError[]] = [[], []];
    client.bus("letters").on((letter) => received.push(letter), { since: 1, onError: (error) => errors.push(error) });
    await vi.waitFor(() => expect(received).toEqual(["c", "d"]));
    expect(errors).toEqual([expect.any(Lagged)]);
  });

  it("is not affected by a listener that throws", async () => {
    const failures = vi.spyOn(console, "error").mockReturnValue();
    const bus = client.bus("letters");
    const received: unknown[] = [];
    bus.on(() => {
      throw new Error("mine");
    });
    bus.on((letter) => received.push(letter));
    await quiet();
    await bobWrites("letters", "a", "b");
    expect(received).toEqual(["a", "b"]);
    expect(failures).toHaveBeenCalledTimes(2);
  });

  it("reports why no messages will come", async () => {
    broker.unanswered.add(2);
    const errors: EbusError[] = [];
    client.bus("letters").on(() => {}, { onError: (error) => errors.push(error) });
    await quiet();
    broker.send([73, "forbidden", "not you", broker.received(2)[0]![1]]);
    broker.settle();
    expect(errors).toMatchObject([{ code: "forbidden" }]);
  });
});

it("history returns the last n values over several pages", async () => {
  for (const value of "abcdefgh") broker.write(broker.bus("letters"), value);
  const bus = client.bus("letters");
  expect(await bus.history(2)).toEqual(["g", "h"]);
  expect((await bus.history()).join("")).toBe("abcdefgh");
  expect((await bus.history(Infinity)).join("")).toBe("abcdefgh");
  expect(await bus.history(0)).toEqual([]);
});

it("delete removes the bus for all participants", async () => {
  const bus = client.bus("letters");
  await bus.delete();
  expect(bus.error).toMatchObject({ code: "closed" });
  expect(broker.buses.size).toBe(0);
});

it("a bus is opened by its URI", async () => {
  const bus = client.bus("ebus:server/votes#c0ffee");
  await bus.ready;
  expect(broker.received(2)[0]).toEqual([2, 1, "server", "votes", {}, "", "c0ffee", true]);
  expect(bus.uri).toBe("ebus:server/votes");
  expect(() => client.bus("ebus:votes")).toThrow(/ebus:server\/votes/);
});

it("presence lists the participants", async () => {
  const bus = client.bus("votes");
  const reported: number[] = [];
  bus.presence.on((participants) => reported.push(participants.length));
  bus.presence.set({ typing: true });
  await quiet();
  expect(broker.received(7).map((frame) => frame.slice(2))).toEqual([[null, true], [{ typing: true }]]);
  broker.send([74, broker.bus("votes").number, true, [[ALICE, "here", 1, { typing: true }, ""], [BOB, "here", 1, null, "idle"]]]); // prettier-ignore
  broker.settle();
  expect(reported).toEqual([2]);
  expect(bus.presence.participants.map(({ who }) => who.user)).toEqual(["alice", "bob"]);
});

it("buses lists the available buses", async () => {
  broker.bus("votes");
  expect(await client.buses()).toEqual([{ address: "ebus:server/votes" }]);
});

it("a bus closed by its signal reports the reason", async () => {
  const controller = new AbortController();
  const bus = client.bus("votes", { signal: controller.signal });
  await bus.ready;
  controller.abort();
  expect((await bus.closed).details).toEqual({ reason: "closed" });
  await expect(bus.write(1)).rejects.toMatchObject({ code: "closed" });
});

it.each([
  [{}, ""],
  [{ filter: "@owner", maker: "mallory" }, "user:mallory"],
  [{ filter: "stamp", maker: "mallory" }, "server:stamp"],
])("tells whose filter a bus with %j has", async (spec, filteredBy) => {
  broker.bus("lobby", spec);
  const bus = client.bus("lobby");
  expect(bus.filteredBy).toBe("");
  await quiet();
  expect(bus.filteredBy).toBe(filteredBy);
});
