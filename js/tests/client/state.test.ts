/** Shared state of a page, with a broker in the same process. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { connect, type Client } from "../../src/client/client.js";
import { sharedState, type State } from "../../src/client/state.js";
import { FakeBroker, quiet } from "../fake_broker.js";

let broker: FakeBroker;
let client: Client;

beforeEach(() => {
  vi.useFakeTimers();
  broker = new FakeBroker();
  broker.bus("dash", { retain: "keys" });
  client = connect(undefined, { transport: broker.connect });
});

afterEach(async () => {
  client.close();
  await vi.advanceTimersByTimeAsync(2000);
  vi.useRealTimers();
});

async function bobSets(key: string, value: unknown): Promise<void> {
  broker.write(broker.bus("dash"), value, { key, deleted: value === undefined });
  broker.settle();
  await quiet();
}

/** Records the values shown for a key, in order. */
function watch(state: State, key: string): unknown[] {
  const shown: unknown[] = [];
  state.onChange((change) => {
    if (change.key === key) shown.push(change.value);
  });
  return shown;
}

it("has the whole state when it is ready", async () => {
  for (const key of "abcdefg") broker.write(broker.bus("dash"), key.toUpperCase(), { key });
  const state = sharedState(client, "dash");
  await state.ready;
  expect(Object.fromEntries(state)).toEqual({ a: "A", b: "B", c: "C", d: "D", e: "E", f: "F", g: "G" });
  expect([state.size, state.has("a"), state.has("z"), [...state.keys()].length, [...state.values()].length]).toEqual([
    7,
    true,
    false,
    7,
    7,
  ]);
});

it("is ready at once on an empty bus", async () => {
  const state = sharedState(client, "dash");
  await state.ready;
  expect(state.size).toBe(0);
});

it("applies writes of others and sends its own", async () => {
  const state = sharedState(client, "dash");
  const shown = watch(state, "speed");
  await state.ready;
  await bobSets("speed", 3);
  expect(await state.set("speed", 5)).toBe(2);
  await bobSets("speed", undefined);
  expect(shown).toEqual([3, 5, undefined]);
  expect(await state.delete("speed")).toBe(4);
});

it("does not jump back while a write is under way", async () => {
  const state = sharedState(client, "dash");
  const shown = watch(state, "speed");
  await state.ready;
  broker.unanswered.add(6);
  const first = state.set("speed", 1);
  await quiet();
  await bobSets("speed", 100);
  void state.set("speed", 2);
  expect(state.get("speed")).toBe(2);
  broker.unanswered.clear();
  for (const publish of broker.received(6)) broker.answer(publish);
  broker.settle();
  await first;
  await quiet();
  expect(shown).toEqual([1, 2]);
  expect(broker.bus("dash").entries[0]?.[6]).toBe(2);
});

it("sends the first and the last value of a fast drag", async () => {
  const state = sharedState(client, "dash");
  await state.ready;
  const answers = Array.from({ length: 60 }, (_, i) => state.set("speed", i));
  const offsets = await Promise.all(answers);
  expect(broker.received(6).map((frame) => frame[3])).toEqual([0, 59]);
  expect([offsets[0], offsets[1], offsets[59]]).toEqual([1, 2, 2]);
});

it("shows the server's value when a write is refused", async () => {
  const state = sharedState(client, "dash");
  const shown = watch(state, "speed");
  await state.ready;
  await bobSets("speed", 3);
  broker.refuse = (frame) => [73, "filtered", "too fast", 0, frame[2], frame[1], false, { reason: "too fast" }];
  await expect(state.set("speed", 999)).rejects.toMatchObject({ code: "filtered" });
  expect(shown).toEqual([3, 999, 3]);
});

it("replace is a compare-and-set", async () => {
  const state = sharedState<number>(client, "dash");
  await state.ready;
  expect(await state.replace("count", undefined, 1)).toBe(true);
  expect(state.get("count")).toBe(1);
  expect(await state.replace("count", 7, 8)).toBe(false);
  broker.write(broker.bus("dash"), 2, { key: "count" }); // not received yet
  expect(await state.replace("count", 1, 10)).toBe(false);
  await quiet();
  expect(await state.replace("count", 2, 3)).toBe(true);
  expect(await state.replace("count", 3, undefined)).toBe(true);
  expect(state.has("count")).toBe(false);
});

it("replaces the state by another history without flicker", async () => {
  const dash = broker.bus("dash");
  for (const [key, value] of [["a", 1], ["b", 2]] as const) broker.write(dash, value, { key }); // prettier-ignore
  const state = sharedState(client, "dash");
  await state.ready;
  const changes: unknown[] = [];
  state.onChange(({ key, value }) => changes.push([key, value]));
  broker.cut();
  broker.forget();
  for (const key of ["x", "y", "z", "a"]) broker.write(broker.bus("dash", { retain: "keys" }), 1, { key });
  await vi.advanceTimersByTimeAsync(200);
  await quiet();
  expect(Object.fromEntries(state)).toEqual({ a: 1, x: 1, y: 1, z: 1 });
  expect(changes).toEqual([["x", 1], ["y", 1], ["z", 1], ["b", undefined]]); // prettier-ignore
});

it("sends what was set while disconnected", async () => {
  const state = sharedState(client, "dash");
  await state.ready;
  broker.cut();
  const answer = state.set("speed", 5);
  void state.set("speed", 6);
  await vi.advanceTimersByTimeAsync(200);
  await answer;
  await quiet();
  expect(broker.bus("dash").entries[0]?.[6]).toBe(6);
});

it("ready rejects with the reason if the bus cannot be read", async () => {
  broker.unanswered.add(2);
  const state = sharedState(client, "dash");
  await quiet();
  broker.send([73, "spec_conflict", "it keeps no keys", broker.received(2)[0]![1]]);
  broker.settle();
  await expect(state.ready).rejects.toMatchObject({ code: "spec_conflict" });
  const other = sharedState(client, "other");
  other.close();
  await expect(other.ready).rejects.toMatchObject({ code: "closed" });
});
