/** The link, with a broker that is a script: frames go in, frames come out, and no time passes unless the test says so. */
import { describe, expect, it } from "vitest";

import type { Port, Write } from "../src/channel.js";
import { Closed } from "../src/errors.js";
import { encode } from "../src/msgpack.js";
import { Link, MAX_PENDING, type LinkEvent } from "../src/link.js";
import { PATIENCE, SILENCE } from "../src/pulse.js";
import { ALICE, BOB, framesOf, message } from "./broker.js";

const INSTANCE = "0123456789abcdef0123456789abcdef";
const WELCOME = [64, 1, ALICE, "broker", { value_bytes: 1000, batch_bytes: 100_000 }];
type Frames = unknown[][];

class Script {
  readonly link = new Link(INSTANCE, "test");
  now = 0;

  /** What the link has to say. */
  said(): Frames {
    return this.link.take().flatMap((bytes) => framesOf(bytes) as Frames);
  }

  /** The broker says this. */
  hears(...frames: Frames): LinkEvent[] {
    return this.link.receive(message(...frames), this.now);
  }

  connect(): Frames {
    this.link.opened(this.now);
    const said = this.said();
    this.hears(WELCOME);
    return said;
  }

  lose(): LinkEvent[] {
    return this.link.lost();
  }

  /** Open a bus, and have it opened as `number`. */
  open(name = "votes", number = 7, last = 0, spec: Record<string, unknown> = {}): Port {
    const port = this.link.open({ scope: "server", name, spec, owner: "", cap: "", create: true });
    const [open] = this.said();
    this.hears([65, open![1], number, `ebus:server/${name}`, "e1", last, spec]);
    return port;
  }

  /** Begin to read, from `last` on. */
  read(port: Port, number = 7, last = 0): void {
    this.link.read(port);
    const [subscribe] = this.said();
    this.hears([66, subscribe![1], number, "e1", last, last]);
  }

  publish(port: Port, value: unknown, how = {}): Write {
    return this.link.publish(port, encode(value), how);
  }
}

function live(): Script {
  const script = new Script();
  script.connect();
  return script;
}

const delivery = (offset: number, value: unknown, { sender = BOB, id = offset, bus = 7 } = {}) => [67, bus, offset, id, 1.5, sender, value];
const log = (port: Port) => port.channel!.log.read(port.channel!.log.floor).map((item) => ("gap" in item ? `gap ${item.skipped}` : item.value));
const types = (events: LinkEvent[]) => events.map(({ type }) => type);
const settled = (events: LinkEvent[]) => events.filter((event) => event.type === "settled");

describe("greeting", () => {
  it("says hello first, with the same instance each time", () => {
    const script = new Script();
    expect(script.connect()).toEqual([[1, 1, INSTANCE, "test"]]);
    expect(script.link.you?.user).toBe("alice");
    script.lose();
    expect(script.connect()).toEqual([[1, 1, INSTANCE, "test"]]);
  });

  it("is told to go for good, or to come back", () => {
    const script = live();
    expect(script.hears([79, "protocol", "you are too old", false])).toMatchObject([{ type: "bye", again: false, error: { code: "protocol" } }]);
    expect(script.hears([79, "closed", "the server restarts"])).toMatchObject([{ type: "bye", again: true }]);
  });

  it("gives up on a broker that speaks something else", () => {
    expect(live().link.receive(encode("hello"), 0)).toMatchObject([{ type: "bye", again: false, error: { code: "protocol" } }]);
  });
});

describe("opening", () => {
  it("asks before there is a connection, and is answered when there is one", () => {
    const script = new Script();
    const port = script.link.open({ scope: "server", name: "votes", spec: { size: 5 }, owner: "", cap: "", create: true });
    expect(script.said()).toEqual([]);
    expect(script.connect()[1]).toEqual([2, 1, "server", "votes", { size: 5 }, "", "", true]);
    expect(types(script.hears([65, 1, 7, "ebus:server/votes", "e1", 0, {}]))).toEqual(["opened"]);
    expect(port.channel?.number).toBe(7);
  });

  it("closes what the broker refuses, with the reason, and what waits for it", () => {
    const script = live();
    const port = script.link.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    const write = script.publish(port, 1);
    const [open] = script.said();
    const events = script.hears([73, "spec_conflict", "it is otherwise", open![1]]);
    expect(events).toMatchObject([
      { type: "closed", port, error: { code: "spec_conflict" } },
      { type: "settled", request: write, error: { code: "spec_conflict" } },
    ]);
    expect(() => script.publish(port, 2)).toThrow("it is otherwise");
  });

  it("has one channel for a bus that is opened twice, and leaves it with the last", () => {
    const script = live();
    const first = script.open();
    const second = script.link.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    script.link.close(first);
    const [open, ...more] = script.said();
    expect(more).toEqual([]); // the open on its way is for the bus that `first` had
    script.hears([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(second.channel).toBe(first.channel);
    expect(script.said()).toEqual([]);
    script.link.close(second);
    expect(script.said()).toEqual([[12, 7]]);
  });

  it("sends what was written before it leaves", () => {
    const script = live();
    const port = script.link.open({ scope: "server", name: "votes", spec: {}, owner: "", cap: "", create: true });
    const write = script.publish(port, "last words");
    script.link.close(port);
    const [open] = script.said();
    expect(types(script.hears([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]))).toEqual([]);
    expect(script.said()).toEqual([[6, 7, write.id, "last words"]]);
    script.hears([71, 7, write.id, 1]);
    expect(script.said()).toEqual([[12, 7]]);
  });

  it("opens an unnamed bus again by the name and the capability that the broker gave", () => {
    const script = live();
    script.link.open({ scope: "server", name: null, spec: {}, owner: "", cap: "", create: true });
    const [open] = script.said();
    script.hears([65, open![1], 7, "ebus:server/~ab12", "e1", 0, {}, "c0ffee"]);
    script.lose();
    expect(script.connect()[1]).toEqual([2, 2, "server", "~ab12", {}, "", "c0ffee", false]);
  });

  it("is closed when the bus is gone", () => {
    const script = live();
    const port = script.open();
    const write = script.publish(port, 1);
    expect(script.hears([78, 7, "bob has deleted it"])).toMatchObject([
      { type: "settled", request: write, error: { code: "closed" } },
      { type: "closed", port, error: { code: "closed", details: { reason: "bob has deleted it" } } },
    ]);
  });

  it("has deleted a bus when the broker says that it is gone", () => {
    const script = live();
    const port = script.open();
    const removal = script.link.remove(port);
    expect(script.said()).toEqual([[9, 2, 7]]);
    expect(script.hears([78, 7, "alice has deleted it"], [72, 2])).toMatchObject([
      { type: "settled", request: removal, error: null },
      { type: "closed", port },
    ]);
  });

  it("does not delete twice: what became of it is unknown", () => {
    const script = live();
    const removal = script.link.remove(script.open());
    expect(script.lose()).toMatchObject([{ type: "settled", request: removal, error: { code: "connection_lost" } }]);
    script.connect();
    expect(script.said()).toEqual([]);
  });
});

describe("writing", () => {
  it("counts its writes from 1 over all buses", () => {
    const script = live();
    const [votes, chat] = [script.open("votes", 7), script.open("chat", 8)];
    const ids = [votes, chat, votes].map((port) => script.publish(port, "x").id);
    expect(ids).toEqual([1, 2, 3]);
    expect(script.said()).toEqual([
      [6, 7, 1, "x"],
      [6, 8, 2, "x"],
      [6, 7, 3, "x"],
    ]);
  });

  it("puts what is written in one turn into one message", () => {
    const script = live();
    const port = script.open();
    for (let i = 0; i < 100; i++) script.publish(port, i);
    expect(script.link.take()).toHaveLength(1);
  });

  it("splits what is more than the broker takes at once", () => {
    const script = live();
    const port = script.open();
    for (let i = 0; i < 300; i++) script.publish(port, "x".repeat(900));
    const messages = script.link.take();
    expect(messages).toHaveLength(3);
    for (const each of messages) expect(each.length).toBeLessThanOrEqual(100_000);
  });

  it("holds writes until they are released, and nothing overtakes them", () => {
    const script = live();
    const port = script.open();
    script.link.publish(port, encode("a"), {}, true);
    script.link.publish(port, encode("b"), {}, true);
    expect(script.said()).toEqual([]);
    script.publish(port, "c");
    expect(script.said().map((frame) => frame[3])).toEqual(["a", "b", "c"]);
  });

  it("is acked, in runs too", () => {
    const script = live();
    const port = script.open();
    const writes = [1, 2, 3].map((value) => script.publish(port, value));
    const events = settled(script.hears([71, 7, 1, 11, 2], [73, "type_mismatch", "not a number", 0, 3, 7, false, { path: "$" }]));
    expect(events.map(({ request, value, error }) => [request, value, error?.code])).toEqual([
      [writes[0], 11, undefined],
      [writes[1], 12, undefined],
      [writes[2], undefined, "type_mismatch"],
    ]);
  });

  it("sends what has no answer again, in order, with the same ids", () => {
    const script = live();
    const port = script.open();
    const writes = ["a", "b", "c"].map((value) => script.publish(port, value));
    script.said();
    script.hears([71, 7, 1, 1]);
    script.lose();
    const late = script.publish(port, "d"); // written while there is no connection
    const [, open] = script.connect();
    script.hears([65, open![1], 42, "ebus:server/votes", "e1", 1, {}]); // the broker has another number for it now
    expect(script.said()).toEqual([
      [6, 42, 2, "b"],
      [6, 42, 3, "c"],
      [6, 42, 4, "d"],
    ]);
    const events = settled(script.hears([71, 42, 2, 2, 3]));
    expect(events.map(({ request }) => request)).toEqual([writes[1], writes[2], late]);
  });

  it("sends what was written, whatever became of the object", () => {
    const script = live();
    const port = script.open();
    const vote = { choice: "tea" };
    script.publish(port, vote);
    vote.choice = "coffee";
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(script.said()).toEqual([[6, 7, 1, { choice: "tea" }]]);
  });

  it("takes its own delivery for the answer, once", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    const write = script.publish(port, "tea");
    expect(script.hears(delivery(1, "tea", { sender: ALICE, id: 1 }))).toMatchObject([
      { type: "settled", request: write, value: 1 },
      { type: "readable" },
    ]);
    expect(script.hears([71, 7, 1, 1])).toEqual([]);
  });

  it("refuses one write too many, and one that is too large", () => {
    const script = live();
    const port = script.open();
    expect(() => script.publish(port, "x".repeat(2000))).toThrow(/at most 1000/);
    for (let i = 0; i < MAX_PENDING; i++) script.publish(port, i);
    expect(() => script.publish(port, "one more")).toThrow(/10000 writes wait/);
    script.hears([71, 7, 1, 1]);
    expect(() => script.publish(port, "now")).not.toThrow();
  });

  it("tells everyone who waits when it ends", () => {
    const script = live();
    const port = script.open();
    const write = script.publish(port, 1);
    const list = script.link.list();
    const end = new Closed("over");
    expect(script.link.end(end)).toMatchObject([
      { type: "settled", request: write, error: end },
      { type: "closed", port, error: end },
      { type: "settled", request: list, error: end },
    ]);
    expect(() => script.link.open(port.params)).toThrow("over");
  });
});

describe("reading", () => {
  it("keeps the order of offsets and drops what it has seen", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    script.hears(delivery(1, "a"), delivery(2, "b"));
    script.hears(delivery(2, "b"), delivery(1, "a"), delivery(5, "c"));
    expect(log(port)).toEqual(["a", "b", "c"]);
  });

  it("resumes after the last message seen, by epoch, offset and id", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    script.hears(delivery(1, "a"), delivery(2, "b", { id: 77 }));
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 9, "ebus:server/votes", "e1", 3, {}]);
    const [subscribe] = script.said();
    expect(subscribe).toEqual([3, expect.any(Number), 9, "e1", 2, "b0b-77"]);
    script.hears([66, subscribe![1], 9, "e1", 2, 3], delivery(3, "c", { bus: 9 }));
    expect(log(port)).toEqual(["a", "b", "c"]);
  });

  it("moves on past what is not for it", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    script.hears(delivery(1, "a"), [68, 7, 4]);
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 7, "ebus:server/votes", "e1", 4, {}]);
    expect(script.said()).toEqual([[3, expect.any(Number), 7, "e1", 4, ""]]);
  });

  it("leaves a hole where the broker could not give everything", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    script.hears(delivery(1, "a"), [69, 7, 3, 4], delivery(5, "e"));
    expect(log(port)).toEqual(["a", "gap 3", "e"]);
    expect(port.channel?.history).toBe(0);
  });

  it("begins anew where the broker has another history", () => {
    const script = live();
    const port = script.open();
    script.read(port);
    script.hears(delivery(8, "old"));
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 7, "ebus:server/votes", "e2", 1, {}]);
    const [subscribe] = script.said();
    script.hears([66, subscribe![1], 7, "e2", 0, 1, false, -1, true], delivery(1, "new"));
    expect(log(port)).toEqual(["new"]);
    expect(port.channel).toMatchObject({ history: 1, lost: null, epoch: "e2", last: 1 });
  });

  it("begins anew where the broker sends a snapshot by itself", () => {
    const script = live();
    const port = script.open("board", 7, 0, { retain: "keys" });
    script.read(port);
    script.hears(delivery(8, "old"));
    script.hears([66, 0, 7, "e1", 2, 9, false, 3, true], delivery(3, "kept"), delivery(9, "new"));
    expect(log(port)).toEqual([ "new"]);
    expect(port.channel).toMatchObject({ history: 1, lost: 3, target: 9 });
  });

  it("does not take the answer to an earlier subscription for the last one's", () => {
    const script = live();
    const port = script.open();
    script.link.read(port);
    script.link.unread(port);
    script.link.read(port);
    const [first, , second] = script.said();
    script.hears([66, first![1], 7, "e1", 10, 10], delivery(11, "between"));
    expect(port.channel?.reading).toBe("asked");
    script.hears([66, second![1], 7, "e1", 13, 13], delivery(14, "live"));
    expect(log(port)).toEqual(["live"]);
  });

  it("subscribes for the first reader, and unsubscribes with the last", () => {
    const script = live();
    const port = script.open();
    expect(script.said()).toEqual([]);
    script.link.read(port);
    script.link.read(port);
    expect(script.said().map(([tag]) => tag)).toEqual([3]);
    script.link.unread(port);
    expect(script.said()).toEqual([]);
    script.link.unread(port);
    expect(script.said()).toEqual([[4, 7]]);
  });

  it("lets one write who may not read", () => {
    const script = live();
    const port = script.open();
    script.link.read(port);
    const [subscribe] = script.said();
    script.hears([73, "forbidden", "you may not read", subscribe![1]]);
    expect(port.channel?.unreadable?.code).toBe("forbidden");
    expect(() => script.publish(port, 1)).not.toThrow();
  });

  it("asks for a page again after a reconnect", () => {
    const script = live();
    const port = script.open();
    const fetch = script.link.fetch(port, -5);
    expect(script.said()).toEqual([[5, 2, 7, -5, 0]]);
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 8, "ebus:server/votes", "e1", 0, {}]);
    expect(script.said()).toEqual([[5, 4, 8, -5, 0]]);
    expect(settled(script.hears([70, 4, 8, "e1", 0, 0, false, []]))).toMatchObject([{ request: fetch, error: null }]);
  });
});

describe("presence", () => {
  it("is kept by diffs, and said again after a reconnect", () => {
    const script = live();
    const port = script.open();
    script.link.say(port, { typing: true });
    script.link.watch(port);
    expect(script.said()).toEqual([[7, 7, { typing: true }], [7, 7, null, true]]); // prettier-ignore
    script.hears([74, 7, true, [[ALICE, "here", 1, null, ""], [BOB, "here", 1, { n: 1 }, "busy"]]]); // prettier-ignore
    expect(types(script.hears([74, 7, false, [[ALICE, "away", 1, null, ""]], ["b0b"]]))).toEqual(["presence"]);
    expect([...port.channel!.seats.values()]).toMatchObject([{ who: { id: "a11ce" }, status: "away" }]);
    script.lose();
    const [, open] = script.connect();
    script.hears([65, open![1], 7, "ebus:server/votes", "e1", 0, {}]);
    expect(script.said()).toEqual([[7, 7, null, true], [7, 7, { typing: true }]]); // prettier-ignore
  });
});

describe("liveness", () => {
  it("pings a silent broker, and gives up on one that does not answer", () => {
    const script = live();
    for (let now = 0; now < SILENCE; now += 2000) script.link.tick(now);
    expect(script.said()).toEqual([]);
    script.link.tick(SILENCE);
    expect(script.said()).toEqual([[11, 1]]);
    const ticks = Array.from({ length: 6 }, (_, i) => script.link.tick(SILENCE + 2000 * i));
    expect(ticks).toEqual([true, true, true, true, true, false]);
    expect(PATIENCE).toBe(10_000);
  });

  it("is content with any answer", () => {
    const script = live();
    for (let now = 0; now <= SILENCE; now += 2000) script.link.tick(now);
    script.link.tick((script.now = SILENCE + 5000));
    script.hears([77, 1]);
    expect(script.link.tick(script.now + 6000)).toBe(true);
  });

  it("gives up on a broker that does not welcome it", () => {
    const script = new Script();
    script.link.opened(0);
    expect([2000, 4000, 6000, 8000, 10_000].map((now) => script.link.tick(now))).toEqual([true, true, true, true, false]);
  });

  it("asks again after the machine has slept, before it gives up", () => {
    const script = live();
    script.link.probe(0);
    script.said();
    expect(script.link.tick(3_600_000)).toBe(true);
    expect(script.said()).toEqual([[11, 2]]);
  });
});
