/** The module `client.js` as it is built: names inside of it are shortened, those that programs see are not. */
import { beforeAll, expect, it, vi } from "vitest";

import type * as Client from "../src/client/index.js";
import { sharedState } from "../src/client/state.js";
import { BOB, FakeBroker, quiet } from "./fake_broker.js";

interface Scripts {
  buildClient: () => Promise<string>;
  PROPERTIES: string[];
}

const sources = import.meta.glob("../src/{client,core,transports}/*.ts", { eager: true, query: "?raw", import: "default" });

let built: typeof Client;
let scripts: Scripts;

beforeAll(async () => {
  const paths = ["../scripts/client.js", "../scripts/mangle.js"];
  const modules = await Promise.all(paths.map((path) => import(/* @vite-ignore */ path) as Promise<Scripts>));
  scripts = Object.assign({}, ...modules);
  const text = encodeURIComponent(await scripts.buildClient());
  built = (await import(/* @vite-ignore */ `data:text/javascript,${text}`)) as typeof Client;
});

it("works from the greeting to the end", async () => {
  vi.spyOn(console, "warn").mockReturnValue();
  const broker = new FakeBroker();
  broker.limits = { value_bytes: 1 << 20, batch_bytes: 8 << 20, publish_rate: 1000, publish_burst: 100 };
  const client = built.connect(undefined, { transport: broker.connect });
  const bus = client.bus("letters", { retain: "log", size: 5, flushSize: 2, flushInterval: 1 });
  await bus.ready;
  expect([client.status, client.you?.user, bus.name, bus.uri, bus.spec]).toEqual([
    "live",
    "alice",
    "letters",
    "ebus:server/letters",
    { retain: "log", size: 5 },
  ]);
  const messages = bus.messages({ since: "start" });
  const [first] = await Promise.all([bus.write({ choice: "tea" }), bus.write(new Float32Array([1, 2]), { echo: true, to: null })]);
  expect(first).toBe(1);
  expect(await messages.get()).toEqual({
    offset: 1,
    id: "a11ce-1",
    time: 1001,
    value: { choice: "tea" },
    sender: { id: "a11ce", kind: "page", user: "alice", name: "Alice", kernelId: "" },
    key: null,
    deleted: false,
  });
  expect(await messages.clone().get()).toMatchObject({ value: { shape: [2], dtype: "<f4" } });
  expect(bus.position).toEqual({ epoch: "epoch-101", offset: 2, id: "a11ce-2" });
  expect(await bus.history(1)).toHaveLength(1);
  expect(await client.buses()).toEqual([{ address: "ebus:server/letters" }]);

  const seats: unknown[] = [];
  bus.presence.on((all) => seats.push(...all));
  bus.presence.set({ typing: true });
  broker.send([74, broker.bus("letters").number, true, [[BOB, "here", 1, { n: 1 }, "busy"]], []]);
  broker.settle();
  const who = { id: "b0b", kind: "kernel", user: "bob", name: "Bob", kernelId: "k1" };
  expect(seats).toEqual([{ who, status: "here", since: 1, state: { n: 1 }, activity: "busy" }]);

  broker.refuse = (frame) => [73, "type_mismatch", "not a number", 0, frame[2], frame[1], false, { path: "$" }];
  await expect(bus.write(1)).rejects.toMatchObject({
    name: "TypeMismatch",
    code: "type_mismatch",
    temporary: false,
    details: { path: "$" },
  });
  broker.refuse = null;
  await expect(bus.write(1, { key: 5 as never })).rejects.toThrow(TypeError);

  broker.cut();
  for (let i = 0; i < 9; i++) broker.write(broker.bus("letters"), i);
  const lagged = await messages.take(2).catch((error: unknown) => error);
  expect(lagged).toBeInstanceOf(built.Lagged);
  expect(lagged).toMatchObject({ skipped: 4, resumeAfter: 6 });
  await bus.delete();
  expect(await bus.closed).toMatchObject({ code: "closed" });
  client.close();
});

it("carries a state of another build", async () => {
  const broker = new FakeBroker();
  broker.bus("board", { retain: "keys" });
  const client = built.connect(undefined, { transport: broker.connect });
  const state = sharedState(client, "board");
  await state.ready;
  const value = { list: [1] };
  await state.set("a", value);
  value.list.push(2);
  broker.write(broker.bus("board"), 2, { key: "b" });
  broker.settle();
  await quiet();
  expect([...state]).toEqual([["a", { list: [1] }], ["b", 2]]); // prettier-ignore
  expect(() => (state.get("a") as typeof value).list.push(3)).toThrow(TypeError);
  client.close();
});

it("shortens no name of the platform or of the public types", async () => {
  const platform = [Array, Map, Set, Promise, String, Number, DataView, Uint8Array, ArrayBuffer, URL, AbortSignal, AbortController, Error];
  const objects = [...platform, ...platform.map(({ prototype }) => prototype as object), Object, JSON, Math, crypto, globalThis];
  const taken = new Set(objects.flatMap((each) => Object.getOwnPropertyNames(each)));
  const rooms = ["client/bus", "client/client", "client/stream", "client/presence", "core/frames", "core/position", "transports/base"];
  for (const room of rooms) {
    for (const [, name, body] of sources[`../src/${room}.ts`]!.matchAll(/^export (?:interface|class) (\w+).*?\{\n([^]*?)^}/gm)) {
      if (["Page", "Tail"].includes(name!)) continue; // frames, and parts of them
      for (const [, member] of body!.matchAll(/^ {2}(?:readonly |get |async )?(\w+)[?(:<]/gm)) taken.add(member!);
    }
  }
  expect(taken).toContain("onMessage");
  expect(scripts.PROPERTIES.filter((name) => taken.has(name))).toEqual([]);
});
