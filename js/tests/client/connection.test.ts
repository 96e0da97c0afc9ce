/** The connection: reconnecting, giving up, and one socket per page. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { connect } from "../../src/client/client.js";
import type { Status } from "../../src/client/connection.js";
import { attachBus } from "../../src/widgets/handle.js";
import { socketUrl } from "../../src/transports/websocket.js";
import { ALICE, FakeBroker, message, quiet } from "../fake_broker.js";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function connected(broker: FakeBroker) {
  const client = connect(undefined, { transport: broker.connect });
  const statuses: Status[] = [];
  client.onStatus((status) => statuses.push(status));
  return { client, statuses };
}

describe("status", () => {
  it("follows the connection", async () => {
    const broker = new FakeBroker();
    const { client, statuses } = connected(broker);
    expect(client.status).toBe("connecting");
    await quiet();
    broker.cut();
    await vi.advanceTimersByTimeAsync(200);
    client.close();
    await vi.advanceTimersByTimeAsync(1000);
    expect(statuses).toEqual(["live", "reconnecting", "live", "closed"]);
    expect(client.status).toBe("closed");
    expect(broker.connected).toBe(false);
  });

  it("reconnects with growing delays, without end", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const broker = new FakeBroker();
    broker.reachable = false;
    const { client } = connected(broker);
    const dials: number[] = [];
    for (const wait of [0, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000]) {
      await vi.advanceTimersByTimeAsync(wait);
      dials.push(broker.dials);
    }
    expect(dials).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(client.status).toBe("connecting");
    broker.reachable = true;
    await vi.advanceTimersByTimeAsync(2_000);
    expect(client.status).toBe("live");
    client.close();
  });

  it("reconnects at once when the browser is online again", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    const broker = new FakeBroker();
    const { client } = connected(broker);
    await quiet();
    broker.reachable = false;
    broker.cut();
    await vi.advanceTimersByTimeAsync(5000);
    broker.reachable = true;
    page.dispatchEvent(new Event("online"));
    await quiet();
    expect(client.status).toBe("live");
    client.close();
  });

  it("reconnects when the broker is silent", async () => {
    const broker = new FakeBroker();
    const { client, statuses } = connected(broker);
    await quiet();
    broker.unanswered.add(11);
    await vi.advanceTimersByTimeAsync(34_000);
    expect(statuses).toEqual(["live", "reconnecting", "live"]);
    expect(broker.dials).toBe(2);
    client.close();
  });

  it.each([
    ["with an answer", false, ["live"]],
    ["without an answer", true, ["live", "reconnecting"]],
  ])("checks the connection when the browser goes offline: %s", async (_, silent, expected) => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    const broker = new FakeBroker();
    const { client, statuses } = connected(broker);
    await quiet();
    vi.stubGlobal("navigator", { onLine: false });
    if (silent) {
      broker.unanswered.add(11);
      broker.reachable = false;
    }
    page.dispatchEvent(new Event("offline"));
    await vi.advanceTimersByTimeAsync(4_000);
    expect(statuses).toEqual(expected);
    client.close();
  });

  it("a broker that welcomes and then closes is dialled ever less often", async () => {
    let dials = 0;
    const client = connect(undefined, {
      transport: (listener) => {
        dials += 1;
        queueMicrotask(() => {
          listener.opened();
          listener.message(message([64, 1, ALICE, "b", {}], [79, "closed", "too slow", true]));
        });
        return { send: () => {}, close: () => {} };
      },
    });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(dials).toBeLessThan(80);
    client.close();
  });

  it("listeners that are removed leave nothing behind", async () => {
    const { client } = connected(new FakeBroker());
    const signal = new AbortController().signal;
    const added = vi.spyOn(AbortSignal.prototype, "addEventListener");
    const removed = vi.spyOn(AbortSignal.prototype, "removeEventListener");
    for (let i = 0; i < 10; i++) {
      client.onStatus(() => {}, { signal })();
      client.onError(() => {}, { signal })();
    }
    expect(removed.mock.calls.length).toBeGreaterThanOrEqual(added.mock.calls.length);
    client.close();
  });

  it("reconnects after a bye, unless the bye forbids it", async () => {
    const broker = new FakeBroker();
    const { client, statuses } = connected(broker);
    await quiet();
    broker.send([79, "closed", "the server restarts"]);
    broker.settle();
    await vi.advanceTimersByTimeAsync(200);
    expect(client.status).toBe("live");
    const waiting = client.bus("votes").write(1);
    broker.send([79, "protocol", "update ebus_jupyter", false]);
    broker.settle();
    await expect(waiting).rejects.toMatchObject({ code: "protocol", message: "update ebus_jupyter" });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(statuses).toEqual(["live", "reconnecting", "live", "closed"]);
    expect(client.error).toMatchObject({ code: "protocol" });
    expect(() => client.bus("votes")).toThrow("update");
  });
});

// --- one socket per page ----------------------------------------------------------------------------------------------

class FakeSocket {
  static readonly OPEN = 1;
  static made: FakeSocket[] = [];
  readyState = 0;
  onopen?: () => void;
  onmessage?: (event: { data: ArrayBuffer }) => void;
  onclose?: () => void;
  binaryType = "";

  constructor(readonly url: string) {
    FakeSocket.made.push(this);
    queueMicrotask(() => {
      this.readyState = FakeSocket.OPEN;
      this.onopen?.();
      this.onmessage?.({ data: message([64, 1, ALICE, "broker", {}]).slice().buffer });
    });
  }

  send(): void {
    if (this.readyState !== FakeSocket.OPEN) throw new Error("not open");
  }

  close(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

function jupyterPage(baseUrl: string): void {
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("location", new URL("https://hub.example.org/user/alice/lab/tree/x.ipynb"));
  const config = { textContent: JSON.stringify({ baseUrl }) };
  vi.stubGlobal("document", {
    getElementById: (id: string) => (id === "jupyter-config-data" ? config : null),
    addEventListener: () => {},
    removeEventListener: () => {},
    body: { dataset: {} },
  });
  FakeSocket.made = [];
}

describe("page", () => {
  it("shares one socket, closed shortly after the last widget", async () => {
    jupyterPage("/user/alice/");
    const lives = Array.from({ length: 5 }, () => new AbortController());
    const clients = lives.map(({ signal }) => connect(undefined, { signal }));
    await quiet();
    expect(FakeSocket.made.map(({ url }) => url)).toEqual(["wss://hub.example.org/user/alice/ebus/ws"]);
    expect(clients.map(({ status }) => status)).toEqual(Array(5).fill("live"));
    for (const life of lives.slice(1)) life.abort();
    await vi.advanceTimersByTimeAsync(5000);
    expect(FakeSocket.made[0]!.readyState).toBe(FakeSocket.OPEN);
    lives[0]!.abort();
    await vi.advanceTimersByTimeAsync(500);
    const again = connect(); // a widget that is drawn again: the socket is still there
    await vi.advanceTimersByTimeAsync(5000);
    expect(FakeSocket.made).toHaveLength(1);
    again.close();
    await vi.advanceTimersByTimeAsync(1000);
    expect(FakeSocket.made[0]!.readyState).toBe(3);
    connect().close();
    expect(FakeSocket.made).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(1000);
  });

  it("shares the socket between copies of the module", async () => {
    jupyterPage("/");
    const copy = "../../src/client/client.js?copy";
    const other = (await import(copy)) as { connect: typeof connect };
    expect(other.connect).not.toBe(connect);
    const clients = [connect(), other.connect()];
    await quiet();
    expect(FakeSocket.made.map(({ url }) => url)).toEqual(["wss://hub.example.org/ebus/ws"]);
    for (const client of clients) client.close();
    await vi.advanceTimersByTimeAsync(1000);
  });

  it("attachBus returns a bus that closes with the widget", async () => {
    jupyterPage("/");
    const life = new AbortController();
    const ref = { scope: "kernel", owner: "k1", name: "votes", cap: "c0ffee" };
    const model = { get: () => ref, on: () => {}, off: () => {}, send: () => {}, widget_manager: { get_model: () => undefined } };
    const bus = attachBus({ model, signal: life.signal });
    expect(bus.name).toBe("votes");
    life.abort();
    expect((await bus.closed).code).toBe("closed");
    await vi.advanceTimersByTimeAsync(1000);
  });

  it("requests the reason for a refused socket over HTTP", async () => {
    jupyterPage("/");
    class RefusedSocket {
      onerror?: () => void;
      onclose?: () => void;
      constructor() {
        queueMicrotask(() => this.onerror?.());
        queueMicrotask(() => this.onclose?.());
      }
      close(): void {}
    }
    vi.stubGlobal("WebSocket", RefusedSocket);
    const asked: string[] = [];
    vi.stubGlobal("fetch", async (url: string) => {
      asked.push(url);
      return new Response(JSON.stringify({ code: "unauthenticated", text: "log in to Jupyter" }), { status: 403 });
    });
    const client = connect();
    await vi.waitFor(() => expect(client.status).toBe("closed"));
    expect(asked).toEqual(["https://hub.example.org/ebus/ws"]);
    expect(client.error).toMatchObject({ name: "Unauthenticated", message: "log in to Jupyter" });
  });
});

describe("socket address", () => {
  it("is derived from the URL of a server or a socket", () => {
    expect(socketUrl("https://h.example.org/user/a/")).toBe("wss://h.example.org/user/a/ebus/ws");
    expect(socketUrl("http://localhost:8888")).toBe("ws://localhost:8888/ebus/ws");
    expect(socketUrl("ws://localhost:8888/ebus/ws", "s3cret")).toBe("ws://localhost:8888/ebus/ws?token=s3cret");
  });

  it("cannot be derived on a page without a server", () => {
    expect(() => connect()).toThrow(/belongs to no Jupyter server/);
  });
});
