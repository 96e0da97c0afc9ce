import { expect, it } from "vitest";

import { Replica, type Change } from "../../src/core/replica.js";

const seen = (changes: Change[]) => changes.map(({ value, local }) => [value, local]);

it("a local write is shown at once and stays when accepted", () => {
  const replica = new Replica();
  const { change, send } = replica.write("speed", 5);
  expect([change, send]).toEqual([{ key: "speed", value: 5, old: undefined, local: true }, true]);
  expect(replica.accepted("speed", 1)).toEqual({ changes: [], send: false });
  expect([replica.shown("speed"), replica.offset("speed")]).toEqual([5, 1]);
});

it("remote writes are not shown while a local write is under way", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  expect(replica.apply("speed", 1, 3)).toEqual([]); // someone was first
  expect(replica.shown("speed")).toBe(5);
  expect(replica.accepted("speed", 2).changes).toEqual([]);
  expect(replica.shown("speed")).toBe(5);
});

it("a remote write after the local one is shown on acceptance", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  replica.apply("speed", 2, 9);
  expect(seen(replica.accepted("speed", 1).changes)).toEqual([[9, false]]);
});

it("writes older than the known offset are ignored", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  replica.accepted("speed", 2);
  expect(replica.apply("speed", 1, 3)).toEqual([]);
  expect(replica.shown("speed")).toBe(5);
});

it("the own write is updated as the filter has left it", () => {
  const replica = new Replica();
  replica.write("speed", 500);
  replica.accepted("speed", 1);
  expect(seen(replica.apply("speed", 1, 100))).toEqual([[100, false]]);
});

it("a refused write falls back to the server's value", () => {
  const replica = new Replica();
  replica.apply("speed", 1, 3);
  replica.write("speed", -1);
  replica.apply("speed", 2, 4);
  expect(seen(replica.refused("speed").changes)).toEqual([[4, false]]);
  replica.write("colour", "none");
  expect(seen(replica.refused("colour").changes)).toEqual([[undefined, false]]);
});

it("one write per key is under way, and the newest waits", () => {
  const replica = new Replica();
  expect([1, 2, 3].map((value) => replica.write("speed", value).send)).toEqual([true, false, false]);
  expect(replica.accepted("speed", 1)).toEqual({ changes: [], send: true });
  expect(replica.shown("speed")).toBe(3);
  expect(replica.accepted("speed", 2).send).toBe(false);
});

it("removed keys are missing", () => {
  const replica = new Replica();
  replica.apply("a", 1, 1);
  replica.apply("b", 2, 2);
  replica.write("a", undefined);
  expect(replica.keys()).toEqual(["b"]);
  replica.accepted("a", 3);
  expect([replica.keys(), replica.offset("a")]).toEqual([["b"], 0]);
});

it("a snapshot replaces the state and reports only differences", () => {
  const replica = new Replica();
  replica.apply("kept", 1, { x: [1] });
  replica.apply("gone", 2, 2);
  replica.apply("other", 3, 3);
  replica.write("mine", "under way");
  replica.beginSnapshot();
  expect([replica.shown("kept"), replica.shown("gone")]).toEqual([{ x: [1] }, 2]);
  expect(replica.apply("kept", 1, { x: [1] })).toEqual([]);
  expect(seen(replica.apply("other", 2, 4))).toEqual([[4, false]]);
  expect(replica.apply("mine", 3, "older")).toEqual([]);
  expect(replica.endSnapshot()).toEqual([{ key: "gone", value: undefined, old: 2, local: false }]);
  expect(replica.shown("mine")).toBe("under way");
});

it("a key written during a snapshot is not removed", () => {
  const replica = new Replica();
  replica.apply("x", 1, "old");
  replica.beginSnapshot();
  replica.write("x", "new");
  replica.accepted("x", 9);
  expect(replica.endSnapshot()).toEqual([]);
  expect([replica.shown("x"), replica.offset("x")]).toEqual(["new", 9]);
});
