/**
 * A shared widget, and those inside it: binds traits of any ipywidgets to keys of a shared state, in the page, so that they
 * stay live while the kernel is busy. The Python side is a hidden anywidget with the traits `_bus`, `_targets` (by the id
 * of each model: its shared traits, and the key of each in the state) and `_read_only`. `bound` has the rules of one trait.
 *
 * - The state wins at the start: whoever comes late shows what everyone has.
 * - The kernel is told `{ebus: "live", targets}` when models are bound, and again after each reconnect: from then on it
 *   ignores what their comms say of those traits. `{ebus: "status", status}` follows every change of the connection.
 * - The kernel tells `{ebus: "fit", target, trait, of, value}`: the widget can't have `of`, and makes `value` of it.
 */
import { BoundTrait, report, type Fit } from "./bound.js";
import type { Client } from "./client.js";
import { EbusError, NoSuchBus } from "./errors.js";
import { watchPerson } from "./person.js";
import { State } from "./state.js";
import { equal, onAbort } from "./util.js";
import { busOf, clientOf, type HostModel, type Props, type TargetModel } from "./widget.js";

type Keys = Readonly<Record<string, string>>;

/** Bind what the model names, in the background, until `signal` aborts. */
export function attachShare(props: Props): object {
  const { model, signal } = props;
  watchPerson();
  let client: Client;
  try {
    client = clientOf(props);
  } catch (error) {
    // No server to reach from here: the widget works as it always did, through its kernel.
    tell(model, "closed", String(error));
    return {};
  }
  client.onStatus((status) => tell(model, status), { signal });
  void new Share(model, client, signal).run().catch(report);
  return {};
}

/** Tell the kernel how this page stands; one that has just been restarted can't be told, and need not. */
function tell(model: HostModel, status: string, text?: string): void {
  try {
    model.send({ ebus: "status", status, ...(text !== undefined && { text }) });
  } catch {
    // Its comm is gone with the kernel's last life.
  }
}

class Share {
  readonly #targets = new Map<string, { keys: Keys; traits: BoundTrait[]; end: () => void }>();
  #state: State | null = null;
  #announcing = false;

  constructor(
    readonly model: HostModel,
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  async run(): Promise<void> {
    const listeners = {
      "change:_targets": () => this.#name(),
      "change:_read_only": () => this.#each((bound) => bound.show()),
      "msg:custom": (content: unknown) => this.#told(content),
    };
    for (const [event, listener] of Object.entries(listeners)) this.model.on(event, listener);
    onAbort(this.signal, () => {
      for (const [event, listener] of Object.entries(listeners)) this.model.off(event, listener);
      for (const { end } of this.#targets.values()) end();
      this.#targets.clear();
    });
    this.#name();
    const state = await open(this.model, this.client, this.signal);
    if (state && !this.signal.aborted) await this.#follow(state);
  }

  async #follow(state: State): Promise<void> {
    this.#state = state;
    state.onChange(
      ({ key, local }) => {
        if (!local) this.#each((bound) => bound.key === key && bound.arrived());
      },
      { signal: this.signal },
    );
    this.#each((bound) => bound.start(state));
    this.client.onStatus((status) => status === "live" && this.#announce(), { signal: this.signal });
    this.#announce();
    const error = await state.bus.closed;
    if (!this.signal.aborted) tell(this.model, "closed", error.message);
  }

  /** Bind the models that are named, and no others. */
  #name(): void {
    const named = this.model.get("_targets") as Readonly<Record<string, Keys>>;
    for (const [id, { keys, end }] of this.#targets) {
      if (equal(keys, named[id])) continue;
      end();
      this.#targets.delete(id);
    }
    for (const [id, keys] of Object.entries(named)) if (!this.#targets.has(id)) void this.#bind(id, keys).catch(report);
  }

  async #bind(id: string, keys: Keys): Promise<void> {
    const life = new AbortController();
    const bound = { keys, traits: [] as BoundTrait[], end: () => life.abort() };
    this.#targets.set(id, bound);
    const target = await find(this.model, id, life.signal);
    if (!target || life.signal.aborted) return;
    const readOnly = () => this.model.get("_read_only") === true;
    bound.traits = Object.entries(keys).map(([trait, key]) => new BoundTrait(target, trait, key, readOnly, life.signal));
    if (!this.#state) return;
    for (const trait of bound.traits) trait.start(this.#state);
    this.#announce();
  }

  /** Tell the kernel which models hear the bus; once for all that were bound in one go. */
  #announce(): void {
    if (this.#announcing || !this.#state) return;
    this.#announcing = true;
    queueMicrotask(() => {
      this.#announcing = false;
      const targets = [...this.#targets].filter(([, { traits }]) => traits.length > 0).map(([id]) => id);
      if (!this.signal.aborted && targets.length > 0) this.model.send({ ebus: "live", targets });
    });
  }

  #told(content: unknown): void {
    const { ebus, target, trait, ...fit } = content as { ebus: string; target: string; trait: string } & Fit;
    if (ebus !== "fit") return;
    for (const bound of this.#targets.get(target)?.traits ?? []) if (bound.trait === trait) bound.fits(fit);
  }

  #each(act: (bound: BoundTrait) => unknown): void {
    for (const { traits } of this.#targets.values()) traits.forEach(act);
  }
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
async function find(model: HostModel, id: string, signal: AbortSignal): Promise<TargetModel | null> {
  return patiently(signal, async () => {
    try {
      return (await model.widget_manager.get_model(id)) ?? null;
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
