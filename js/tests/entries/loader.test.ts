/** The loader that each widget carries, on pages that cannot load the client from a server. */
import { afterEach, expect, it, vi } from "vitest";

import loader from "../../src/entries/loader.js";

afterEach(() => {
  vi.unstubAllGlobals();
  Reflect.deleteProperty(globalThis, Symbol.for("ebus.client.v1"));
});

it.each([
  ["a broken configuration", "{not json", "http://host"],
  ["an opaque origin", null, "null"],
])("a page with %s asks the kernel", async (_, config, origin) => {
  vi.stubGlobal("document", { getElementById: () => config && { textContent: config }, body: { dataset: {} } });
  vi.stubGlobal("location", { origin });
  const sent: unknown[] = [];
  const model = { get: () => "1", on: () => {}, off: () => {}, send: (content: unknown) => void sent.push(content) };
  void loader.initialize({ model, signal: new AbortController().signal });
  await vi.waitFor(() => expect(sent).toEqual([{ ebus: "client" }]));
});
