import { expect, it } from "vitest";

import { Replica, type Change } from "../src/replica.js";

const seen = (changes: Change[]) => changes.map(({ value, local }) => [value, local]);

it("shows what it writes at once, and keeps it when it is accepted", () => {
  const replica = new Replica();
  const { change, send } = replica.write("speed", 5);
  expect([change, send]).toEqual([{ key: "speed", value: 5, old: undefined, local: true }, true]);
  expect(replica.acked("speed", 1)).toEqual({ changes: [], send: false });
  expect([replica.shown("speed"), replica.offset("speed")]).toEqual([5, 1]);
});

it("does not flicker: what others write before its own has its place is not shown", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  expect(replica.apply("speed", 1, 3)).toEqual([]); // someone was first
  expect(replica.shown("speed")).toBe(5);
  expect(replica.acked("speed", 2).changes).toEqual([]);
  expect(replica.shown("speed")).toBe(5);
});

it("shows what others wrote after its own, when it knows that", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  replica.apply("speed", 2, 9);
  expect(seen(replica.acked("speed", 1).changes)).toEqual([[9, false]]);
});

it("ignores what is older than what it knows", () => {
  const replica = new Replica();
  replica.write("speed", 5);
  replica.acked("speed", 2);
  expect(replica.apply("speed", 1, 3)).toEqual([]);
  expect(replica.shown("speed")).toBe(5);
});

it("takes its own write back from the bus as the filter has left it", () => {
  const replica = new Replica();
  replica.write("speed", 500);
  replica.acked("speed", 1);
  expect(seen(replica.apply("speed", 1, 100))).toEqual([[100, false]]);
});

it("falls back to what the server has when it is refused", () => {
  const replica = new Replica();
  replica.apply("speed", 1, 3);
  replica.write("speed", -1);
  replica.apply("speed", 2, 4);
  expect(seen(replica.acked("speed", null).changes)).toEqual([[4, false]]);
  replica.write("colour", "none");
  expect(seen(replica.acked("colour", null).changes)).toEqual([[undefined, false]]);
});

it("has one write of a key on its way: of those that wait, the newest", () => {
  const replica = new Replica();
  expect([1, 2, 3].map((value) => replica.write("speed", value).send)).toEqual([true, false, false]);
  expect(replica.acked("speed", 1)).toEqual({ changes: [], send: true });
  expect(replica.shown("speed")).toBe(3);
  expect(replica.acked("speed", 2).send).toBe(false);
});

it("removes keys, and counts them as not there", () => {
  const replica = new Replica();
  replica.apply("a", 1, 1);
  replica.apply("b", 2, 2);
  replica.write("a", undefined);
  expect(replica.keys()).toEqual(["b"]);
  replica.acked("a", 3);
  expect([replica.keys(), replica.offset("a")]).toEqual([["b"], 0]);
});

it("changes to a snapshot without a flicker, and what is equal does not change", () => {
  const replica = new Replica();
  replica.apply("kept", 1, { x: [1] });
  replica.apply("gone", 2, 2);
  replica.apply("other", 3, 3);
  replica.write("mine", "on its way");
  replica.beginSnapshot();
  expect([replica.shown("kept"), replica.shown("gone")]).toEqual([{ x: [1] }, 2]);
  expect(replica.apply("kept", 1, { x: [1] })).toEqual([]);
  expect(seen(replica.apply("other", 2, 4))).toEqual([[4, false]]);
  expect(replica.apply("mine", 3, "older")).toEqual([]);
  expect(replica.endSnapshot()).toEqual([{ key: "gone", value: undefined, old: 2, local: false }]);
  expect(replica.shown("mine")).toBe("on its way");
});

it("does not take for gone what it wrote while a snapshot came", () => {
  const replica = new Replica();
  replica.apply("x", 1, "old");
  replica.beginSnapshot();
  replica.write("x", "new");
  replica.acked("x", 9);
  expect(replica.endSnapshot()).toEqual([]);
  expect([replica.shown("x"), replica.offset("x")]).toEqual(["new", 9]);
});
