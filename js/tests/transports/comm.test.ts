/** The tunnel through a kernel: numbers, joined messages, and the end after a hole. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { connect } from "../../src/client/client.js";
import { viaKernel, type CommModel } from "../../src/transports/comm.js";
import { orElse } from "../../src/transports/fallback.js";
import type { Transport } from "../../src/transports/base.js";
import { FakeBroker, quiet } from "../fake_broker.js";

type Listener = (content?: unknown, buffers?: unknown) => void;

/** A widget whose kernel relays to a broker. */
class Model implements CommModel {
  readonly listeners = new Set<Listener>();
  readonly sent: { ebus: string; channel: string; n: number }[] = [];
  /** The messages to the page that are lost. */
  lost = 0;
  #n = 0;
  #relay: Transport | null = null;

  constructor(readonly broker = new FakeBroker()) {}

  on(_: string, listener: Listener): void {
    this.listeners.add(listener);
  }

  off(_: string, listener: Listener): void {
    this.listeners.delete(listener);
  }

  send(content: unknown, _: unknown, buffers: ArrayBufferView[] = []): void {
    const message = content as (typeof this.sent)[number];
    this.sent.push(message);
    if (message.ebus === "open") {
      this.#n = 0;
      const { channel } = message;
      this.#relay = this.broker.connect({
        opened: () => {},
        message: (bytes) => {
          const n = (this.#n += 1);
          if (this.lost > 0) this.lost -= 1;
          else for (const listener of [...this.listeners]) listener({ ebus: "frames", channel, n }, [new DataView(bytes.slice().buffer)]);
        },
        closed: () => {},
      });
    }
    if (message.ebus === "frames") for (const each of buffers) this.#relay?.send(each as Uint8Array);
  }
}

let kernels = 0;
beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function widget(model: Model, kernel: string) {
  const life = new AbortController();
  const way = orElse(viaKernel(kernel, { model, signal: life.signal }));
  return { life, client: connect(undefined, { signal: life.signal, kernel: { name: kernel, way, only: true } }) };
}

it("everything of one turn travels in one message", async () => {
  const model = new Model();
  const { client, life } = widget(model, `k${(kernels += 1)}`);
  const bus = client.bus<number>("letters");
  await bus.ready;
  const before = model.sent.length;
  await Promise.all([1, 2, 3].map((n) => bus.write(n)));
  const frames = model.sent.slice(before);
  expect(frames.map(({ ebus }) => ebus)).toEqual(["frames"]);
  expect(model.sent.filter(({ ebus }) => ebus === "frames").map(({ n }, i) => n - i)).toEqual(model.sent.slice(1).map(() => 1));
  life.abort();
});

it("a message that is lost on the way is made up for", async () => {
  const model = new Model();
  const { client, life } = widget(model, `k${(kernels += 1)}`);
  const stream = client.bus("letters").stream();
  await stream.begun();
  const bob = (value: string) => {
    model.broker.write(model.broker.bus("letters"), value);
    model.broker.settle();
  };
  bob("a");
  model.lost = 1;
  bob("b");
  bob("c");
  await vi.advanceTimersByTimeAsync(1000);
  expect(await stream.take(3)).toEqual(["a", "b", "c"]);
  expect(model.sent.filter(({ ebus }) => ebus === "open")).toHaveLength(2);
  life.abort();
});

it("works where there is no crypto.randomUUID", async () => {
  vi.stubGlobal("crypto", { getRandomValues: (array: Uint8Array) => array.fill(7) });
  const { client, life } = widget(new Model(), `k${(kernels += 1)}`);
  await quiet();
  expect(client.status).toBe("live");
  life.abort();
});

it("a view that closes does not end the other view of its widget", async () => {
  const model = new Model();
  const kernel = `k${(kernels += 1)}`;
  const [first, second] = [widget(model, kernel), widget(model, kernel)];
  const bus = second.client.bus("letters");
  await bus.ready;
  first.life.abort();
  await vi.advanceTimersByTimeAsync(2000);
  expect(await bus.write("still here")).toBe(1);
  second.life.abort();
});

describe("a page on a server", () => {
  class FakeSocket {
    static readonly OPEN = 1;
    static dials = 0;
    static behaviour: "fail" | "hang" | "throw" | "open" = "fail";
    readyState = 0;
    binaryType = "";
    onopen?: () => void;
    onerror?: () => void;
    constructor() {
      FakeSocket.dials += 1;
      if (FakeSocket.behaviour === "throw") throw new DOMException("insecure", "SecurityError");
      queueMicrotask(() => (FakeSocket.behaviour === "open" ? this.onopen?.() : FakeSocket.behaviour === "fail" && this.onerror?.()));
    }
    send(): void {}
    close(): void {}
  }

  let status = 500;
  beforeEach(() => {
    FakeSocket.dials = 0;
    status = 500;
    vi.stubGlobal("WebSocket", FakeSocket);
    vi.stubGlobal("fetch", async () => ({ status, json: async () => ({}) }));
  });

  function page(url: string, model = new Model()) {
    const life = new AbortController();
    const kernel = `k${(kernels += 1)}`;
    const way = orElse(viaKernel(kernel, { model, signal: life.signal }));
    return { model, life, client: connect(url, { signal: life.signal, kernel: { name: kernel, way, only: false } }) };
  }

  it.each([
    ["fail", 20_000],
    ["hang", 60_000],
    ["throw", 10],
  ] as const)("goes by its kernel when its sockets %s", async (behaviour, time) => {
    FakeSocket.behaviour = behaviour;
    const { client, model, life } = page(`http://${behaviour}.example/`);
    await vi.advanceTimersByTimeAsync(time);
    expect([client.status, model.sent[0]?.ebus]).toEqual(["live", "open"]);
    life.abort();
    await vi.advanceTimersByTimeAsync(2000);
  });

  it("goes by its kernel at the second dial where the server has no such endpoint", async () => {
    FakeSocket.behaviour = "fail";
    status = 404;
    const { client, life } = page("http://old.example/");
    await vi.advanceTimersByTimeAsync(1000);
    expect([client.status, FakeSocket.dials]).toEqual(["live", 1]);
    life.abort();
    await vi.advanceTimersByTimeAsync(2000);
  });

  it("does not go by its kernel for one failed dial, and returns to its socket", async () => {
    FakeSocket.behaviour = "fail";
    const { model, life } = page("http://flaky.example/");
    await quiet();
    expect(model.sent).toEqual([]);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(model.sent.length).toBeGreaterThan(0);
    FakeSocket.behaviour = "open";
    await vi.advanceTimersByTimeAsync(31_000);
    expect(model.sent.at(-1)?.ebus).toBe("close");
    life.abort();
    await vi.advanceTimersByTimeAsync(2000);
  });

  it("chooses a kernel that is there when it is dialled", async () => {
    FakeSocket.behaviour = "fail";
    const [first, second] = [page("http://two.example/"), page("http://two.example/")];
    await vi.advanceTimersByTimeAsync(20_000);
    expect(second.client.status).toBe("live");
    const [used, other] = first.model.sent.length > 0 ? [first, second] : [second, first];
    used.life.abort();
    used.model.broker.cut();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(other.client.status).toBe("live");
    expect(other.model.sent.map(({ ebus }) => ebus)).toContain("open");
    other.life.abort();
    await vi.advanceTimersByTimeAsync(2000);
  });
});
