import { expect, it } from "vitest";

import { Lagged } from "../../src/core/errors.js";
import { Log } from "../../src/core/log.js";

interface Item {
  offset: number;
  key?: string;
  deleted?: boolean;
  value?: Uint8Array;
}

function lagOf(read: () => unknown): Lagged {
  try {
    read();
  } catch (error) {
    if (error instanceof Lagged) return error;
  }
  throw new Error("it did not lag");
}

function read(log: Log<Item>, after: number): Item[] {
  const found: Item[] = [];
  for (let item = log.next(after); item; item = log.next(item.offset)) found.push(item);
  return found;
}
const offsets = (items: Item[]) => items.map(({ offset }) => offset);

it("a slow reader lags once and continues", () => {
  const log = new Log<Item>({ size: 2 });
  for (const offset of [1, 2, 3]) log.append({ offset });
  const lag = lagOf(() => read(log, 0));
  expect(lag).toMatchObject({ skipped: 1, resumeAfter: 1, code: "lagged", temporary: true });
  expect(lag.message).toMatch(/missed 1 message; the stream goes on after offset 1/);
  expect(offsets(read(log, lag.resumeAfter))).toEqual([2, 3]);
});

it("next returns the first item after any position", () => {
  const log = new Log<Item>({ size: 10 });
  for (const offset of [2, 5, 9]) log.append({ offset }); // offsets need not be contiguous
  expect([0, 2, 3, 5, 8].map((after) => log.next(after)?.offset)).toEqual([2, 5, 5, 9, 9]);
  expect(log.next(9)).toBeUndefined();
});

it('"latest" keeps one item and conflates silently', () => {
  const log = new Log<Item>({ retain: "latest" });
  for (const offset of [1, 2, 3]) log.append({ offset });
  expect(offsets(read(log, 0))).toEqual([3]);
});

it('"keys" keeps the last item of each key, by offset', () => {
  const log = new Log<Item>({ retain: "keys", size: 4 });
  for (let offset = 1; offset <= 1000; offset++) log.append({ offset, key: "abc"[offset % 3]! });
  expect(offsets(read(log, 0))).toEqual([998, 999, 1000]);
  expect(offsets(read(log, 998))).toEqual([999, 1000]);
  expect(log.length).toBe(3);
});

it('"keys" bounds the removal marks; older readers start over', () => {
  const log = new Log<Item>({ retain: "keys", size: 2 });
  log.append({ offset: 1, key: "stays" });
  for (let offset = 2; offset <= 5; offset++) log.append({ offset, key: `k${offset}`, deleted: true });
  expect(log.length).toBe(3);
  expect(lagOf(() => read(log, 1))).toMatchObject({ skipped: 2, resumeAfter: 0 });
  expect(offsets(read(log, 3))).toEqual([4, 5]);
});

it("maxBytes bounds the log, except for the last item", () => {
  const log = new Log<Item>({ maxBytes: 100 });
  for (let offset = 1; offset <= 3; offset++) log.append({ offset, value: new Uint8Array(40) });
  expect(offsets(read(log, log.floor))).toEqual([2, 3]);
  log.append({ offset: 4, value: new Uint8Array(1000) });
  expect(offsets(read(log, log.floor))).toEqual([4]);
});

it("the log stays small over many items", () => {
  const log = new Log<Item>({ size: 3 });
  for (let offset = 1; offset <= 10_000; offset++) log.append({ offset });
  expect(log.floor).toBe(9997);
  expect(offsets(read(log, 9997))).toEqual([9998, 9999, 10_000]);
});

it("after a restart, earlier readers lag", () => {
  const log = new Log<Item>();
  log.append({ offset: 7 });
  log.restart(20);
  expect(lagOf(() => read(log, 7))).toMatchObject({ skipped: 13, resumeAfter: 20 });
  expect(() => log.append({ offset: 20 })).toThrow(/does not follow/);
});
