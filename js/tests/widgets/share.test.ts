/** Shared widgets: a model as ipywidgets creates it, and the hidden model that names it. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { connect } from "../../src/client/client.js";
import { movedCaret } from "../../src/widgets/sharing/user_input.js";
import { attachShare } from "../../src/widgets/sharing/share.js";
import { FakeBroker, quiet } from "../fake_broker.js";

class Emitter {
  readonly listeners = new Map<string, Set<(...args: never[]) => void>>();
  on(event: string, listener: (...args: never[]) => void): void {
    this.listeners.set(event, (this.listeners.get(event) ?? new Set()).add(listener));
  }
  off(event: string, listener: (...args: never[]) => void): void {
    this.listeners.get(event)?.delete(listener);
  }
  trigger(event: string, content?: unknown): void {
    for (const listener of [...(this.listeners.get(event) ?? [])]) (listener as (content?: unknown) => void)(content);
  }
}

/** A slider's model, as `@jupyter-widgets/base` creates it. */
class Slider extends Emitter {
  static serializers: Record<string, unknown> = {};
  _state_lock: unknown = null;
  widget_manager = manager;
  /** The values of `value`, in order. */
  shown: unknown[] = [];
  constructor(readonly state: Record<string, unknown> = { value: 0 }) {
    super();
  }
  get(name: string): unknown {
    return this.state[name];
  }
  set(state: Record<string, unknown>): void {
    for (const [name, value] of Object.entries(state)) {
      if (this.state[name] === value) continue;
      this.state[name] = value;
      if (name === "value") this.shown.push(value);
      this.trigger(`change:${name}`);
    }
  }
  /** A change by the kernel, or by the bus. */
  set_state(state: Record<string, unknown>): void {
    this._state_lock = state;
    this.set(state);
    this._state_lock = null;
  }
  serialize(state: Record<string, unknown>): Record<string, unknown> {
    return Object.fromEntries(
      Object.entries(state).map(([name, value]) => [
        name,
        value instanceof DataView ? value : (JSON.parse(JSON.stringify(value)) as unknown),
      ]),
    );
  }
}

class Hidden extends Emitter {
  sent: unknown[] = [];
  widget_manager = manager;
  constructor(readonly traits: Record<string, unknown>) {
    super();
  }
  get(name: string): unknown {
    return this.traits[name];
  }
  send(content: unknown): void {
    this.sent.push(content);
  }
}

const models = new Map<string, Slider>();
const manager = {
  get_model: async (id: string): Promise<never> => {
    const found = models.get(id);
    if (!found) throw new Error("widget model not found");
    return found as never;
  },
};

vi.mock("../../src/client/client.js", { spy: true });

let broker: FakeBroker;
let life: AbortController;

beforeEach(() => {
  vi.useFakeTimers();
  models.clear();
  broker = new FakeBroker();
  broker.bus("shares", { retain: "keys" });
  life = new AbortController();
  const client = connect(undefined, { transport: broker.connect, signal: life.signal });
  vi.mocked(connect).mockReturnValue(client);
});

afterEach(async () => {
  life.abort();
  await vi.advanceTimersByTimeAsync(2000);
  vi.mocked(connect).mockReset();
  vi.useRealTimers();
});

function share(target: Slider | null, keys: Record<string, string> = { value: "speed.value" }, readOnly = false): Hidden {
  if (target) models.set("m1", target);
  const ref = { scope: "server", owner: "", name: "shares", cap: "", insist: { filter: null } };
  const hidden = new Hidden({ _bus: ref, _targets: { m1: keys }, _read_only: readOnly });
  expect(attachShare({ model: hidden, signal: life.signal })).toEqual({});
  return hidden;
}

async function bobSets(key: string, value: unknown): Promise<void> {
  broker.write(broker.bus("shares"), value, { key });
  broker.settle();
  await quiet();
}

const live = (hidden: Hidden) => hidden.sent.filter((content) => (content as { ebus: string }).ebus === "live").length;
/** Waits until a change can no longer be the echo of a shown value. */
const settled = () => vi.advanceTimersByTimeAsync(1500);
const written = () => broker.received(6).map((frame) => [frame[4], frame[3]]);

it("shows the current state at the start", async () => {
  broker.write(broker.bus("shares"), 42, { key: "speed.value" });
  const slider = new Slider();
  const hidden = share(slider);
  await quiet();
  expect(slider.get("value")).toBe(42);
  expect(live(hidden)).toBe(1);
  expect(written()).toEqual([]); // values from the bus are not written back
});

it("insists on the spec that the kernel names, at each opening", async () => {
  share(new Slider());
  await quiet();
  const opened = () => broker.received(2).map((frame) => [frame[4], frame[7]]);
  expect(opened()).toEqual([[{ filter: null }, false]]);
  broker.cut();
  await vi.advanceTimersByTimeAsync(1000);
  await quiet();
  expect(opened()).toEqual([
    [{ filter: null }, false],
    [{ filter: null }, false],
  ]);
});

it("applies writes of others without writing them back", async () => {
  const slider = new Slider();
  share(slider);
  await quiet();
  await bobSets("speed.value", 7);
  expect(slider.shown).toEqual([7]);
  expect(written()).toEqual([]);
});

it("writes the user's changes only", async () => {
  const slider = new Slider({ value: 0, max: 10 });
  share(slider);
  await quiet();
  slider.set({ value: 5 });
  slider.set({ max: 20 }); // not shared
  slider.set_state({ value: 6 }); // by the kernel
  await quiet();
  expect(written()).toEqual([["speed.value", 5]]);
});

it("never shows an old value during a drag", async () => {
  const slider = new Slider();
  share(slider);
  await quiet();
  for (let value = 1; value <= 60; value++) {
    slider.set({ value });
    if (value % 10 === 0) await quiet();
  }
  await quiet();
  expect(slider.shown).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
  expect(broker.bus("shares").entries.at(-1)?.[6]).toBe(60);
});

it("shows the bus's value after an unconfirmed kernel change", async () => {
  const slider = new Slider();
  share(slider);
  await quiet();
  await bobSets("speed.value", 7);
  slider.set_state({ value: 3 }); // a late echo
  await vi.advanceTimersByTimeAsync(400);
  expect(slider.get("value")).toBe(7);
  slider.set_state({ value: 9 }); // a change by the kernel that arrives before the bus's
  await bobSets("speed.value", 9);
  await vi.advanceTimersByTimeAsync(400);
  expect(slider.shown).toEqual([7, 3, 7, 9]);
});

it("shows the shared value when a write is refused", async () => {
  const warned = vi.spyOn(console, "warn").mockReturnValue();
  const slider = new Slider();
  share(slider);
  await quiet();
  await bobSets("speed.value", 7);
  await settled();
  broker.refuse = (frame) => [73, "forbidden", "you only look on", 0, frame[2], frame[1]];
  slider.set({ value: 8 });
  await quiet();
  expect(slider.get("value")).toBe(7);
  expect(warned).toHaveBeenCalledWith(expect.anything(), "you only look on");
});

it("does not write the widget's conversion of a shown value", async () => {
  const slider = new Slider();
  share(slider);
  await quiet();
  await bobSets("speed.value", 7.4);
  slider.set({ value: 7 }); // at once, or after an animation
  await vi.advanceTimersByTimeAsync(300);
  slider.set({ value: 7.5 });
  await settled();
  expect(slider.get("value")).toBe(7.4); // shown once more, in case the widget missed it
  await settled();
  slider.set({ value: 7 });
  await settled();
  expect(slider.get("value")).toBe(7);
  expect(written()).toEqual([["speed.value", 7]]); // long after: not an echo
});

it("writes changes that the page derives from another trait", async () => {
  const slider = new Slider({ value: 0, max: 10 });
  slider.on("change:max", () => slider.set({ value: Number(slider.get("max")) / 2 }));
  share(slider, { value: "value", max: "max" });
  await quiet();
  await bobSets("max", 30);
  expect(slider.get("value")).toBe(15);
  expect(written()).toEqual([["value", 15]]);
  slider.set_state({ max: 50 }); // by the kernel
  await quiet();
  expect(written().at(-1)).toEqual(["value", 25]);
});

it("a read-only share restores the shared value", async () => {
  const slider = new Slider();
  share(slider, undefined, true);
  await bobSets("speed.value", 7);
  await settled();
  slider.set({ value: 9 });
  await settled();
  expect(slider.shown).toEqual([7, 9, 7]);
  expect(written()).toEqual([]);
});

it("shows the kernel's conversion of a value that does not fit", async () => {
  const slider = new Slider();
  const hidden = share(slider);
  await quiet();
  await bobSets("speed.value", 500);
  hidden.trigger("msg:custom", { ebus: "fit", target: "m1", trait: "value", of: 500, value: 100 });
  await settled();
  expect(slider.get("value")).toBe(100);
  await bobSets("speed.value", 30);
  expect(slider.get("value")).toBe(30);
  expect(written()).toEqual([]);
});

it("binds each widget of a tree by its own keys", async () => {
  const [left, right] = [new Slider(), new Slider()];
  models.set("m2", right);
  const hidden = share(left, { value: "children/0/value" });
  hidden.traits._targets = { m1: { value: "children/0/value" }, m2: { value: "children/1/value" } };
  hidden.trigger("change:_targets");
  await quiet();
  await bobSets("children/1/value", 3);
  left.set({ value: 4 });
  await quiet();
  expect([left.get("value"), right.get("value")]).toEqual([4, 3]);
  expect(hidden.sent.at(-1)).toEqual({ ebus: "live", targets: ["m1", "m2"] });
});

it("the caret keeps its place when the text changes", () => {
  expect(movedCaret(3, "abcdef", "abcXdef")).toBe(3);
  expect(movedCaret(6, "abcdef", "abcXdef")).toBe(7);
  expect(movedCaret(6, "abcdef", "Zabcdef")).toBe(7);
  expect(movedCaret(4, "abcdef", "ab")).toBe(2);
  expect(movedCaret(0, "", "abc")).toBe(0);
});

it("waits for a widget that is created later", async () => {
  const hidden = share(null);
  await vi.advanceTimersByTimeAsync(1000);
  expect(live(hidden)).toBe(0);
  const slider = new Slider();
  models.set("m1", slider);
  await bobSets("speed.value", 3);
  await vi.advanceTimersByTimeAsync(2000);
  expect([slider.get("value"), live(hidden)]).toEqual([3, 1]);
});

it("releases all listeners with its signal", async () => {
  const slider = new Slider();
  const hidden = share(slider);
  await quiet();
  life.abort();
  await quiet();
  slider.set({ value: 5 });
  await quiet();
  expect(written()).toEqual([]);
  expect([...slider.listeners.values(), ...hidden.listeners.values()].map((set) => set.size)).toEqual([0, 0, 0, 0]);
});

it("reports the connection's status to the kernel", async () => {
  const slider = new Slider();
  const hidden = share(slider);
  await quiet();
  broker.cut();
  slider.set({ value: 5 }); // while disconnected
  await vi.advanceTimersByTimeAsync(200);
  await quiet();
  expect(hidden.sent).toEqual([
    { ebus: "live", targets: ["m1"] },
    { ebus: "status", status: "reconnecting" },
    { ebus: "status", status: "live" },
    { ebus: "live", targets: ["m1"] },
  ]);
  expect(broker.bus("shares").entries.at(-1)?.[6]).toBe(5);
});

it("binds newly named widgets and releases the others", async () => {
  const [first, second] = [new Slider(), new Slider()];
  const hidden = share(first);
  await quiet();
  models.set("m2", second);
  hidden.traits._targets = { m2: { value: "speed.value" } };
  hidden.trigger("change:_targets");
  await quiet();
  await bobSets("speed.value", 4);
  expect([first.get("value"), second.get("value"), live(hidden)]).toEqual([0, 4, 2]);
});

it("uses the widget's serializers, and converts binary data", async () => {
  class Picture extends Slider {
    static override serializers = {
      child: { deserialize: async (id: string) => ({ model: id }) },
    };
  }
  const picture = new Picture({ value: new DataView(Uint8Array.of(1).buffer), child: null });
  share(picture, { value: "value", child: "child" });
  await quiet();
  await bobSets("value", Uint8Array.of(1, 2, 3));
  await bobSets("child", "IPY_MODEL_x");
  expect(picture.get("value")).toEqual(new DataView(Uint8Array.of(1, 2, 3).buffer));
  expect((picture.get("value") as DataView).buffer.byteLength).toBe(3); // widgets use the whole buffer
  expect(picture.get("child")).toEqual({ model: "IPY_MODEL_x" });
  await settled();
  picture.set({ value: new DataView(Uint8Array.of(9).buffer) });
  await quiet();
  expect(written()).toEqual([["value", Uint8Array.of(9)]]);
});

it("does nothing on a page without a server", () => {
  vi.mocked(connect).mockImplementation(() => {
    throw new Error("no server");
  });
  const hidden = share(new Slider());
  expect(hidden.sent).toEqual([{ ebus: "status", status: "closed", text: "Error: no server" }]);
});
