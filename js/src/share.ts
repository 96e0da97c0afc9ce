/**
 * A shared widget: binds traits of any ipywidget to keys of a shared state, in the page, so that it stays live while the
 * kernel is busy. The Python side is a hidden anywidget with the traits `_bus`, `_target` (the model's id) and `_keys`
 * (each shared trait, and its key in the state).
 *
 * - What comes from the bus is applied with `set_state`, which does not send it to the kernel: the kernel hears the bus.
 * - A change made under the model's `_state_lock` came from the kernel, or from us: it is not written. Every other one is
 *   the user's, and is. The kernel sends what it sets over the bus as well, so what it sends to the model alone can only
 *   be early, or a late echo: if the bus does not agree a moment later, the bus's value is shown again.
 * - The state wins at the start: whoever comes late shows what everyone has.
 * - The kernel is told `{ebus: "live"}` when the traits are bound, and again after each reconnect: from then on it ignores
 *   what this model's comm says of them. `{ebus: "status", status}` follows every change of the connection.
 */
import { connect, type Client } from "./client.js";
import { EbusError, NoSuchBus } from "./errors.js";
import { State } from "./state.js";
import { equal, onAbort } from "./util.js";
import { busOf, type HostModel, type Props, type TargetModel } from "./widget.js";

/** How long the bus may take to confirm what the kernel told the model. */
const CONFIRM = 300;

/** Bind what the model names, in the background, until `signal` aborts. */
export function attachShare({ model, signal }: Props): object {
  let client: Client;
  try {
    client = connect(undefined, { signal });
  } catch (error) {
    // No server to reach from here: the widget works as it always did, through its kernel.
    model.send({ ebus: "status", status: "closed", text: String(error) });
    return {};
  }
  let binding = new AbortController();
  const rebind = () => {
    binding.abort();
    binding = new AbortController();
    if (!signal.aborted) void bind(model, client, binding.signal).catch(report);
  };
  const sources = ["_bus", "_target", "_keys"].map((name) => `change:${name}`);
  for (const event of sources) model.on(event, rebind);
  onAbort(signal, () => {
    for (const event of sources) model.off(event, rebind);
    binding.abort();
  });
  client.onStatus((status) => model.send({ ebus: "status", status }), { signal });
  rebind();
  return {};
}

async function bind(model: HostModel, client: Client, signal: AbortSignal): Promise<void> {
  const [state, target] = await Promise.all([open(model, client, signal), find(model, signal)]);
  if (!state || !target || signal.aborted) return;
  const keys = Object.entries(model.get("_keys") as Record<string, string>);
  for (const [trait, key] of keys) bindTrait(state, key, target, trait, signal);
  const live = () => model.send({ ebus: "live" });
  client.onStatus((status) => status === "live" && live(), { signal });
  void state.bus.closed.then((error) => {
    if (!signal.aborted) model.send({ ebus: "status", status: "closed", text: error.message });
  });
  live();
}

function bindTrait(state: State, key: string, target: TargetModel, trait: string, signal: AbortSignal): void {
  /** Counts what was shown: a value that takes time to unpack is too late once a newer one is there. */
  let version = 0;
  let check: ReturnType<typeof setTimeout> | undefined;

  const show = () => {
    const value = state.get(key);
    if (value === undefined || equal(value, read(target, trait))) return;
    const mine = (version += 1);
    const put = (unpacked: unknown) => {
      if (mine === version && !signal.aborted) target.set_state({ [trait]: unpacked });
    };
    const unpack = serializers(target)?.[trait]?.deserialize;
    const raw = mapBinary(value, (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    if (unpack) Promise.resolve(unpack(raw, target.widget_manager)).then(put, report);
    else put(raw);
  };

  const changed = () => {
    if (target._state_lock != null) {
      clearTimeout(check);
      check = setTimeout(show, CONFIRM);
      return;
    }
    const value = read(target, trait);
    if (value === undefined || equal(value, state.get(key))) return;
    version += 1;
    state.set(key, value).catch(report);
  };

  target.on(`change:${trait}`, changed);
  state.onChange(
    (change) => {
      if (change.key === key && !change.local) show();
    },
    { signal },
  );
  onAbort(signal, () => {
    clearTimeout(check);
    target.off(`change:${trait}`, changed);
  });
  show();
}

/** The state, opened; it may be a while until the kernel has made it (again). Null once `signal` has aborted. */
async function open(model: HostModel, client: Client, signal: AbortSignal): Promise<State | null> {
  return patiently(signal, async () => {
    const [name, options] = busOf(model);
    const state = new State(client.bus(name, { ...options, signal }));
    try {
      await state.ready;
      return state;
    } catch (error) {
      state.close();
      if (error instanceof NoSuchBus || (error instanceof EbusError && error.temporary)) return null;
      throw error;
    }
  });
}

/** The widget's model; widgets are made in any order. Null once `signal` has aborted. */
async function find(model: HostModel, signal: AbortSignal): Promise<TargetModel | null> {
  return patiently(signal, async () => {
    try {
      return (await model.widget_manager.get_model(String(model.get("_target")))) ?? null;
    } catch {
      return null;
    }
  });
}

/** Try until there is a result, less and less often. */
async function patiently<T>(signal: AbortSignal, attempt: () => Promise<T | null>): Promise<T | null> {
  for (let wait = 50; !signal.aborted; wait = Math.min(wait * 1.5, 5000)) {
    const found = await attempt();
    if (found !== null) return found;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, wait);
      onAbort(signal, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  return null;
}

type Serializers = Partial<Record<string, { deserialize?: (value: unknown, manager: unknown) => unknown }>>;

function serializers(target: TargetModel): Serializers | undefined {
  return (target.constructor as { serializers?: Serializers }).serializers;
}

/** The trait's value as it travels; undefined where it can't. */
function read(target: TargetModel, trait: string): unknown {
  try {
    const packed = target.serialize({ [trait]: target.get(trait) })[trait];
    return mapBinary(packed, (bytes) => bytes);
  } catch {
    return undefined;
  }
}

/** A copy of `value` in which every piece of binary is what `make` makes of its bytes: a comm carries only such. */
function mapBinary(value: unknown, make: (bytes: Uint8Array) => unknown): unknown {
  if (value instanceof ArrayBuffer) return make(new Uint8Array(value));
  if (ArrayBuffer.isView(value)) return make(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (Array.isArray(value)) return value.map((item) => mapBinary(item, make));
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapBinary(item, make)]));
}

function report(error: unknown): void {
    console.warn("[ebus] share:", error instanceof Error ? error.message : error);
}
