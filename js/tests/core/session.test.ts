/** The session, with a scripted broker: frames go in, frames come out, and the test sets the time. */
import { describe, expect, it } from "vitest";

import type { ChannelHandle, Write } from "../../src/core/channel.js";
import { Closed } from "../../src/core/errors.js";
import type { SessionEvent } from "../../src/core/events.js";
import { decode, encode } from "../../src/core/msgpack.js";
import { PATIENCE, SILENCE } from "../../src/core/heartbeat.js";
import { MAX_IN_FLIGHT } from "../../src/core/outbox.js";
import { MAX_PENDING_BYTES } from "../../src/core/requests.js";
import { Session } from "../../src/core/session.js";
import { ALICE, BOB, framesOf, message } from "../fake_broker.js";

const INSTANCE = "0123456789abcdef0123456789abcdef";
const WELCOME = [64, 1, ALICE, "broker", { value_bytes: 1000, batch_bytes: 100_000 }];
type Frames = unknown[][];

class Script {
  readonly session = new Session(INSTANCE, "test");
  now = 0;

  /** Returns the frames that the session sends. */
  sent(): Frames {
    return this.session.dataToSend(this.now).flatMap((bytes) => framesOf(bytes) as Frames);
  }

  /** The broker sends frames. */
  receive(...frames: Frames): SessionEvent[] {
    return this.session.receiveData(message(...frames), this.now);
  }

  connect(): Frames {
    this.session.connectionMade(this.now);
    const sent = this.sent();
    this.receive(WELCOME);
    return sent;
  }

  lose(): SessionEvent[] {
    return this.session.connectionLost();
  }

  /** Opens a bus; the broker answers with `number`. */
  open(name = "votes", number = 7, last = 0, spec: Record<string, unknown> = {}): ChannelHandle {
    const handle = this.session.open({ scope: "server", name, spec, owner: "", cap: "", create: true });
    const [open] = this.sent();
    this.receive([65, open![1], number, `ebus:server/${name}`, "e1", last, spec]);
    return handle;
  }

  /** Subscribes; messages begin after `last`. */
  read(handle: ChannelHandle, number = 7, last = 0): void {
    this.session.subscribe(handle);
    const [subscribe] = this.sent();
    this.receive([66, subscribe![1], number, "e1", last, last]);
  }

  publish(handle: ChannelHandle, value: unknown, how = {}): Write {
    return this.session.publish(handle, encode(value), this.now, how);
  }
}

function live(): Script {
  const script = new Script();
  script.connect();
  return script;
}

const delivery = (offset: number, value: unknown, { sender = BOB, id = offset, bus = 7 } = {}) => [67, bus, offset, id, 1.5, sender, value];
function log(handle: ChannelHandle): unknown[] {
  const { log } = handle.channel!;
  const found: unknown[] = [];
  for (let item = log.next(log.floor); item; item = log.next(item.offset)) {
    found.push("gap" in item ? `gap ${item.skipped}` : decode(item.value));
  }
  return found;
}
const types = (events: SessionEvent[]) => events.map(({ type }) => type);
const settledWrites = (events: SessionEvent[]) => events.filter((event) => event.type === "write_settled");
const settledRequests = (events: SessionEvent[]) => events.filter((event) => event.type === "request_settled");

describe("hello", () => {
  it("is the first frame, with the same instance id on each connection", () => {
    const script = new Script();
    expect(script.connect()).toEqual([[1, 1, INSTANCE, "test", true]]);
    expect(script.session.you?.user).toBe("alice");
    script.lose();
    expect(script.connect()).toEqual([[1, 1, INSTANCE, "test", true]]);
  });

  it("bye ends the connection for good, or until a reconnect", () => {
    const script = live();
    expect(script.receive([79, "protocol", "you are too old", false])).toMatchObject([
      { type: "connection_ended", reconnect: false, error: { code: "protocol" } },
    ]);
    expect(script.receive([79, "closed", "the server restarts"])).toMatchObject([{ type: "connection_ended", reconnect: true }]);
  });

  it("a message that is not ebus ends the connection for good", () => {
    expect(live().session.receiveData(encode("hello"), 0)).toMatchObject([
      { type: "connection_ended", reconnect: false, error: { code: "protocol" } },
    ]);
  });
});

describe("opening", () => {
  it("a wrong argument is refused in the call, and opens nothing", () => {
    const script = new Script();
    const params = { scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true };
    const wrong = [{ scope: null }, { name: 5 }, { owner: 1 }, { cap: {} }, { spec: { schema: { parse: () => 1 } } }];
    for (const field of wrong) expect(() => script.session.open({ ...params, ...field } as never)).toThrow(TypeError);
    expect(() => script.session.open({ ...params, spec: { type: "x".repeat(9 << 20) } })).toThrow(/batch_bytes/);
    expect(script.connect()).toHaveLength(1);
  });

  it("a second opening that is refused leaves the first one as it is", () => {
    const script = live();
    const first = script.open();
    script.read(first);
    const second = script.session.open({ ...first.params, spec: { size: 5 } });
    script.session.subscribe(second);
    const lost = script.publish(second, 1);
    const [open] = script.sent();
    const events = script.receive([73, "spec_conflict", "another size", open![1]]);
    expect(events).toMatchObject([{ type: "bus_closed", handle: second }, { type: "write_settled", write: lost }]); // prettier-ignore
    script.receive(delivery(1, "tea"));
    expect([first.error, log(first)]).toEqual([null, ["tea"]]);
  });

  it("an open before the connection is sent with hello", () => {
    const script = new Script();
    const handle = script.session.open({ scope: "server", name: "votes", spec: { size: 5 }, owner: "", cap: "", create: true });
    expect(script.sent()).toEqual([]);
    expect(script.connect()[1]).toEqual([2, 1, "server", "votes", { size: 5 }, "", "", true]);
    expect(types(script.receive([65, 1, 7, "ebus:server/votes", "e1", 0, {}]))).toEqual(["bus_opened"]);
    expect(handle.channel?.number).toBe(7);
  });

  it("a refused open closes the handle and its writes with the reason", () => {
    const script = live();
    const handle = script.session.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    const write = script.publish(handle, 1);
    const [open] = script.sent();
    const events = script.receive([73, "spec_conflict", "it is otherwise", open![1]]);
    expect(events).toMatchObject([
      { type: "bus_closed", handle, error: { code: "spec_conflict" } },
      { type: "write_settled", write, error: { code: "spec_conflict" } },
    ]);
    expect(() => script.publish(handle, 2)).toThrow("it is otherwise");
  });

  it("two handles of one bus share a channel, left with the last handle", () => {
    const script = live();
    const first = script.open();
    const second = script.session.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    script.session.leave(first, script.now);
    const [open, ...more] = script.sent();
    expect(more).toEqual([]); // the open under way is for the bus of `first`
    script.receive([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(second.channel).toBe(first.channel);
    expect(script.sent()).toEqual([]);
    script.session.leave(second, script.now);
    expect(script.sent()).toEqual([[12, 7]]);
  });

  it("pending writes are sent before the bus is left", () => {
    const script = live();
    const handle = script.session.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    const write = script.publish(handle, "last words");
    script.session.leave(handle, script.now);
    const [open] = script.sent();
    expect(types(script.receive([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]))).toEqual([]);
    expect(script.sent()).toEqual([[6, 7, write.id, "last words"]]);
    script.receive([71, 7, write.id, 1]);
    expect(script.sent()).toEqual([[12, 7]]);
  });

  it("an unnamed bus is reopened by the broker's name and capability", () => {
    const script = live();
    script.session.open({ scope: "server", name: null, spec: {}, owner: "", cap: "", create: true });
    const [open] = script.sent();
    script.receive([65, open![1], 7, "ebus:server/~ab12", "e1", 0, {}, "c0ffee"]);
    script.lose();
    expect(script.connect()[1]).toEqual([2, 2, "server", "~ab12", {}, "", "c0ffee", false]);
  });

  it("a bus that is gone closes the handle and its writes", () => {
    const script = live();
    const handle = script.open();
    const write = script.publish(handle, 1);
    expect(script.receive([78, 7, "bob has deleted it"])).toMatchObject([
      { type: "write_settled", write, error: { code: "closed" } },
      { type: "bus_closed", handle, error: { code: "closed", details: { reason: "bob has deleted it" } } },
    ]);
  });

  it("a deletion is settled when the bus is gone", () => {
    const script = live();
    const handle = script.open();
    const removal = script.session.delete(handle);
    expect(script.sent()).toEqual([[9, 2, 7]]);
    expect(script.receive([78, 7, "alice has deleted it"], [72, 2])).toMatchObject([
      { type: "request_settled", request: removal, error: null },
      { type: "bus_closed", handle },
    ]);
  });

  it("a deletion is not repeated after a lost connection", () => {
    const script = live();
    const removal = script.session.delete(script.open());
    expect(script.lose()).toMatchObject([{ type: "request_settled", request: removal, error: { code: "connection_lost" } }]);
    script.connect();
    expect(script.sent()).toEqual([]);
  });
});

describe("writing", () => {
  it("write ids count from 1 over all buses", () => {
    const script = live();
    const [votes, chat] = [script.open("votes", 7), script.open("chat", 8)];
    const ids = [votes, chat, votes].map((handle) => script.publish(handle, "x").id);
    expect(ids).toEqual([1, 2, 3]);
    expect(script.sent()).toEqual([
      [6, 7, 1, "x"],
      [6, 8, 2, "x"],
      [6, 7, 3, "x"],
    ]);
  });

  it("writes of one turn travel in one message", () => {
    const script = live();
    const handle = script.open();
    for (let i = 0; i < 100; i++) script.publish(handle, i);
    expect(script.session.dataToSend(script.now)).toHaveLength(1);
  });

  it("messages are split at the broker's limit", () => {
    const script = live();
    const handle = script.open();
    for (let i = 0; i < 300; i++) script.publish(handle, "x".repeat(900));
    const messages = script.session.dataToSend(script.now);
    expect(messages).toHaveLength(3);
    for (const each of messages) expect(each.length).toBeLessThanOrEqual(100_000);
  });

  it("batched writes wait for a flush, and later writes do not overtake", () => {
    const script = live();
    const handle = script.open();
    script.session.publish(handle, encode("a"), 0, {}, true);
    script.session.publish(handle, encode("b"), 0, {}, true);
    expect(script.sent()).toEqual([]);
    script.publish(handle, "c");
    expect(script.sent().map((frame) => frame[3])).toEqual(["a", "b", "c"]);
  });

  it("one ok frame can settle several writes", () => {
    const script = live();
    const handle = script.open();
    const writes = [1, 2, 3].map((value) => script.publish(handle, value));
    const events = settledWrites(script.receive([71, 7, 1, 11, 2], [73, "type_mismatch", "not a number", 0, 3, 7, false, { path: "$" }]));
    expect(events.map(({ write, offset, error }) => [write, offset, error?.code])).toEqual([
      [writes[0], 11, undefined],
      [writes[1], 12, undefined],
      [writes[2], undefined, "type_mismatch"],
    ]);
  });

  it("unacknowledged writes are sent again, in order, with their ids", () => {
    const script = live();
    const handle = script.open();
    const writes = ["a", "b", "c"].map((value) => script.publish(handle, value));
    script.sent();
    script.receive([71, 7, 1, 1]);
    script.lose();
    const late = script.publish(handle, "d"); // without a connection
    const [, open] = script.connect();
    script.receive([65, open![1], 42, "ebus:server/votes", "e1", 1, {}]); // the bus has another number now
    expect(script.sent()).toEqual([
      [6, 42, 2, "b"],
      [6, 42, 3, "c"],
      [6, 42, 4, "d"],
    ]);
    const events = settledWrites(script.receive([71, 42, 2, 2, 3]));
    expect(events.map(({ write }) => write)).toEqual([writes[1], writes[2], late]);
  });

  it("a retry sends the value as it was written", () => {
    const script = live();
    const handle = script.open();
    const vote = { choice: "tea" };
    script.publish(handle, vote);
    vote.choice = "coffee";
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(script.sent()).toEqual([[6, 7, 1, { choice: "tea" }]]);
  });

  it("the own delivery settles the write, once", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    const write = script.publish(handle, "tea");
    expect(script.receive(delivery(1, "tea", { sender: ALICE, id: 1 }))).toMatchObject([
      { type: "write_settled", write, offset: 1 },
      { type: "messages_arrived" },
    ]);
    expect(script.receive([71, 7, 1, 1])).toEqual([]);
  });

  it("writes without an answer are bounded in bytes; too large ones are refused", () => {
    const script = live();
    script.receive([64, 1, ALICE, "broker", { value_bytes: MAX_PENDING_BYTES, batch_bytes: MAX_PENDING_BYTES }]);
    const handle = script.open();
    expect(() => script.publish(handle, new Uint8Array(MAX_PENDING_BYTES))).toThrow(/value_bytes/);
    script.publish(handle, new Uint8Array(MAX_PENDING_BYTES - 2000));
    for (let i = 0; i < 3; i++) script.publish(handle, i);
    expect(() => script.publish(handle, new Uint8Array(1000))).toThrow(/4 writes wait/);
    script.receive([71, 7, 1, 1]);
    expect(() => script.publish(handle, new Uint8Array(1000))).not.toThrow();
  });

  it("no more writes are in flight than a bus remembers", () => {
    const script = live();
    const handle = script.open();
    for (let i = 0; i < MAX_IN_FLIGHT + 5; i++) script.publish(handle, i);
    expect(script.sent()).toHaveLength(MAX_IN_FLIGHT);
    script.receive([71, 7, 1, 1, 3]);
    expect(script.sent().map((frame) => frame[2])).toEqual([1, 2, 3].map((n) => MAX_IN_FLIGHT + n));
  });

  it("a wrong option is refused in the call", () => {
    const script = live();
    const handle = script.open();
    for (const how of [{ key: 5 }, { to: "bob" }, { to: [1] }, { expect: 1.5 }, { expect: "1" }]) {
      expect(() => script.publish(handle, 1, how)).toThrow(TypeError);
    }
    expect(script.sent()).toEqual([]);
    expect(script.publish(handle, 1).id).toBe(1);
  });

  it("close settles everything that waits with the error", () => {
    const script = live();
    const handle = script.open();
    const write = script.publish(handle, 1);
    const list = script.session.listBuses();
    const end = new Closed("over");
    expect(script.session.close(end)).toMatchObject([
      { type: "write_settled", write, error: end },
      { type: "bus_closed", handle, error: end },
      { type: "request_settled", request: list, error: end },
    ]);
    expect(() => script.session.open({ ...handle.params, spec: {} })).toThrow("over");
  });
});

describe("reading", () => {
  it("duplicates are dropped", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    script.receive(delivery(1, "a"), delivery(2, "b"));
    script.receive(delivery(2, "b"), delivery(1, "a"), delivery(5, "c"));
    expect(log(handle)).toEqual(["a", "b", "c"]);
  });

  it("a subscription resumes by epoch, offset and id", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    script.receive(delivery(1, "a"), delivery(2, "b", { id: 77 }));
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 9, "ebus:server/votes", "e1", 3, {}]);
    const [subscribe] = script.sent();
    expect(subscribe).toEqual([3, expect.any(Number), 9, "e1", 2, "b0b-77", 0]);
    script.receive([66, subscribe![1], 9, "e1", 2, 3], delivery(3, "c", { bus: 9 }));
    expect(log(handle)).toEqual(["a", "b", "c"]);
  });

  it("a resume after messages for others carries the id of the last visible one", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    script.receive(delivery(1, "a"), [68, 7, 4]);
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 7, "ebus:server/votes", "e1", 4, {}]);
    expect(script.sent()).toEqual([[3, expect.any(Number), 7, "e1", 4, "b0b-1", 1]]);
  });

  it("a lag frame leaves a gap in the log", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    script.receive(delivery(1, "a"), [69, 7, 3, 4], delivery(5, "e"));
    expect(log(handle)).toEqual(["a", "gap 3", "e"]);
    expect(handle.channel?.resets).toBe(0);
  });

  it("another epoch resets the log", () => {
    const script = live();
    const handle = script.open();
    script.read(handle);
    script.receive(delivery(8, "old"));
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 7, "ebus:server/votes", "e2", 1, {}]);
    const [subscribe] = script.sent();
    script.receive([66, subscribe![1], 7, "e2", 0, 1, false, -1, true], delivery(1, "new"));
    expect(log(handle)).toEqual(["new"]);
    expect(handle.channel).toMatchObject({ resets: 1, resetSkipped: null, epoch: "e2", last: 1 });
  });

  it("an unrequested snapshot resets the log", () => {
    const script = live();
    const handle = script.open("board", 7, 0, { retain: "keys" });
    script.read(handle);
    script.receive(delivery(8, "old"));
    script.receive([66, 0, 7, "e1", 2, 9, false, 3, true], delivery(3, "kept"), delivery(9, "new"));
    expect(log(handle)).toEqual(["new"]);
    expect(handle.channel).toMatchObject({ resets: 1, resetSkipped: 3, target: 9 });
  });

  it("the answer to an earlier subscription is ignored", () => {
    const script = live();
    const handle = script.open();
    script.session.subscribe(handle);
    script.session.unsubscribe(handle);
    script.session.subscribe(handle);
    const [first, , second] = script.sent();
    script.receive([66, first![1], 7, "e1", 10, 10], delivery(11, "between"));
    expect(handle.channel?.subscription).toBe("requested");
    script.receive([66, second![1], 7, "e1", 13, 13], delivery(14, "live"));
    expect(log(handle)).toEqual(["live"]);
  });

  it("the first reader subscribes, the last one unsubscribes", () => {
    const script = live();
    const handle = script.open();
    expect(script.sent()).toEqual([]);
    script.session.subscribe(handle);
    script.session.subscribe(handle);
    expect(script.sent().map(([tag]) => tag)).toEqual([3]);
    script.session.unsubscribe(handle);
    expect(script.sent()).toEqual([]);
    script.session.unsubscribe(handle);
    expect(script.sent()).toEqual([[4, 7]]);
  });

  it("a client without read access can write", () => {
    const script = live();
    const handle = script.open();
    script.session.subscribe(handle);
    const [subscribe] = script.sent();
    script.receive([73, "forbidden", "you may not read", subscribe![1]]);
    expect(handle.channel?.unreadable?.code).toBe("forbidden");
    expect(() => script.publish(handle, 1)).not.toThrow();
  });

  it("a page request is repeated after a reconnect", () => {
    const script = live();
    const handle = script.open();
    const fetch = script.session.fetch(handle, -5);
    expect(script.sent()).toEqual([[5, 2, 7, -5, 0]]);
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 8, "ebus:server/votes", "e1", 0, {}]);
    expect(script.sent()).toEqual([[5, 4, 8, -5, 0]]);
    expect(settledRequests(script.receive([70, 4, 8, "e1", 0, 0, false, []]))).toMatchObject([{ request: fetch, error: null }]);
  });
});

describe("presence", () => {
  it("changes are merged, and states are sent again after a reconnect", () => {
    const script = live();
    const handle = script.open();
    script.session.setPresence(handle, encode({ typing: true }));
    script.session.watchPresence(handle);
    expect(script.sent()).toEqual([[7, 7, { typing: true }], [7, 7, null, true]]); // prettier-ignore
    script.receive([74, 7, true, [[ALICE, "here", 1, null, ""], [BOB, "here", 1, { n: 1 }, "busy"]]]); // prettier-ignore
    expect(types(script.receive([74, 7, false, [[ALICE, "away", 1, null, ""]], ["b0b"]]))).toEqual(["presence_changed"]);
    expect([...handle.channel!.participants.values()]).toMatchObject([{ who: { id: "a11ce" }, status: "away" }]);
    script.lose();
    const [, open] = script.connect();
    script.receive([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(script.sent()).toEqual([[7, 7, null, true], [7, 7, { typing: true }]]); // prettier-ignore
  });

  it("of several handles, the last state counts; it ends with its handle", () => {
    const script = live();
    const [first, second] = [script.open(), script.open()];
    script.session.setPresence(first, encode(1));
    script.session.setPresence(second, encode(2));
    script.session.setPresence(first, encode(3));
    expect(script.sent().map((frame) => frame[2])).toEqual([1, 2, 3]);
    script.session.leave(first, 0);
    expect(script.sent()).toEqual([[7, 7, 2]]);
    script.session.setPresence(second, null);
    expect(script.sent()).toEqual([[7, 7, null]]);
  });

  it("is watched as long as a handle wants it", () => {
    const script = live();
    const [first] = [script.open(), script.open()];
    script.session.watchPresence(first);
    expect(script.sent()).toEqual([[7, 7, null, true]]);
    script.session.leave(first, 0);
    expect(script.sent()).toEqual([[7, 7, null, false]]);
  });

  it("a state that is too large is refused in the call", () => {
    const handle = live().open();
    expect(() => new Script().session.setPresence(handle, new Uint8Array(5000))).toThrow(/presence_bytes/);
  });
});

describe("heartbeat", () => {
  it("pings a silent broker, and gives up without an answer", () => {
    const script = live();
    for (let now = 0; now < SILENCE; now += 2000) script.session.tick(now);
    expect(script.sent()).toEqual([]);
    script.session.tick(SILENCE);
    expect(script.sent()).toEqual([[11, 0]]);
    const ticks = Array.from({ length: 6 }, (_, i) => script.session.tick(SILENCE + 2000 * i));
    expect(ticks).toEqual([true, true, true, true, true, false]);
    expect(PATIENCE).toBe(10_000);
  });

  it("any message counts as an answer", () => {
    const script = live();
    for (let now = 0; now <= SILENCE; now += 2000) script.session.tick(now);
    script.session.tick((script.now = SILENCE + 5000));
    script.receive([77, 0]);
    expect(script.session.tick(script.now + 6000)).toBe(true);
  });

  it("gives up without a welcome", () => {
    const script = new Script();
    script.session.connectionMade(0);
    expect([2000, 4000, 6000, 8000, 10_000].map((now) => script.session.tick(now))).toEqual([true, true, true, true, false]);
  });

  it("pings once more after the machine has slept", () => {
    const script = live();
    script.session.ping(0);
    script.sent();
    expect(script.session.tick(3_600_000)).toBe(true);
    expect(script.sent()).toEqual([[11, 0]]);
  });

  it("gives up in a page whose timers are throttled to one a minute", () => {
    const script = live();
    const ticks = [1, 2, 3, 4].map((minute) => script.session.tick(minute * 60_000));
    expect(ticks).toEqual([true, true, false, false]);
  });

  it("an answer between throttled checks keeps the connection", () => {
    const script = live();
    for (let minute = 1; minute < 60; minute++) {
      script.now = minute * 60_000;
      expect(script.session.tick(script.now)).toBe(true);
      script.receive([77, 0]);
    }
  });
});
