/**
 * Shared widgets: binds traits of ipywidgets to keys of a shared state, in the page, so that they stay live while the kernel
 * is busy.
 *
 * The Python side is a hidden anywidget with the traits `_bus`, `_targets` (the shared traits of each model, by the model's
 * id, and each trait's key in the state) and `_read_only`. `bound_trait` defines the rules for one trait.
 *
 * - The state wins at the start: late joiners show the current state.
 * - The page sends `{ebus: "live", targets}` to the kernel when models are bound, and again after each reconnect. From then
 *   on the kernel ignores what their comms say about those traits. `{ebus: "status", status}` follows each change of the
 *   connection's status.
 * - The kernel sends `{ebus: "fit", target, trait, of, value}`: the widget cannot have `of`, and uses `value` instead.
 */
import { EbusError, NoSuchBus, type Client } from "../../client/index.js";
import { sharedState, type State } from "../../client/state.js";
import { onAbort } from "../../core/abort.js";
import { equal } from "../../core/equal.js";
import { busOf, clientOf, type HostModel, type Props, type TargetModel } from "../model.js";
import { BoundTrait, report, type Fit } from "./bound_trait.js";
import { trackInput } from "./user_input.js";

/** The delays between attempts grow from the first to the last, in milliseconds. */
const FIRST_DELAY = 50;
const MAX_DELAY = 5_000;

type Keys = Readonly<Record<string, string>>;

/** Binds the models that the given model names, in the background, until `signal` aborts. */
export function attachShare(props: Props): object {
  const { model, signal } = props;
  trackInput();
  let client: Client;
  try {
    client = clientOf(props);
  } catch (error) {
    // No server can be reached: the widgets work as they do without sharing, through their kernel.
    sendStatus(model, "closed", String(error));
    return {};
  }
  client.onStatus((status) => sendStatus(model, status), { signal });
  void new Share(model, client, signal).run().catch(report);
  return {};
}

/** Reports the page's status to the kernel. A kernel that has just restarted cannot be told, and need not be. */
function sendStatus(model: HostModel, status: string, text?: string): void {
  try {
    model.send({ ebus: "status", status, ...(text !== undefined && { text }) });
  } catch {
    // The restart has closed the comm.
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
      "change:_targets": () => this.#updateTargets(),
      "change:_read_only": () => this.#each((bound) => bound.show()),
      "msg:custom": (content: unknown) => this.#received(content),
    };
    for (const [event, listener] of Object.entries(listeners)) this.model.on(event, listener);
    onAbort(this.signal, () => {
      for (const [event, listener] of Object.entries(listeners)) this.model.off(event, listener);
      for (const { end } of this.#targets.values()) end();
      this.#targets.clear();
    });
    this.#updateTargets();
    const state = await openState(this.model, this.client, this.signal);
    if (state && !this.signal.aborted) await this.#start(state);
  }

  async #start(state: State): Promise<void> {
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
    if (!this.signal.aborted) sendStatus(this.model, "closed", error.message);
  }

  /** Binds the models that `_targets` names, and releases all others. */
  #updateTargets(): void {
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
    const target = await findModel(this.model, id, life.signal);
    if (!target || life.signal.aborted) return;
    const readOnly = () => this.model.get("_read_only") === true;
    bound.traits = Object.entries(keys).map(([trait, key]) => new BoundTrait(target, trait, key, readOnly, life.signal));
    if (!this.#state) return;
    for (const trait of bound.traits) trait.start(this.#state);
    this.#announce();
  }

  /** Reports the bound models to the kernel, once for all that were bound in the same turn of the event loop. */
  #announce(): void {
    if (this.#announcing || !this.#state) return;
    this.#announcing = true;
    queueMicrotask(() => {
      this.#announcing = false;
      const targets = [...this.#targets].filter(([, { traits }]) => traits.length > 0).map(([id]) => id);
      if (!this.signal.aborted && targets.length > 0) this.model.send({ ebus: "live", targets });
    });
  }

  #received(content: unknown): void {
    const { ebus, target, trait, ...fit } = content as { ebus: string; target: string; trait: string } & Fit;
    if (ebus !== "fit") return;
    for (const bound of this.#targets.get(target)?.traits ?? []) if (bound.trait === trait) bound.fits(fit);
  }

  #each(act: (bound: BoundTrait) => unknown): void {
    for (const { traits } of this.#targets.values()) traits.forEach(act);
  }
}

/** Opens the state, however long the kernel takes to create it. Returns null if `signal` aborts first. */
async function openState(model: HostModel, client: Client, signal: AbortSignal): Promise<State | null> {
  return retry(signal, async () => {
    const [name, options] = busOf(model);
    const state = sharedState(client, name, { ...options, signal });
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

/** Finds a widget's model; widgets are created in any order. Returns null if `signal` aborts first. */
async function findModel(model: HostModel, id: string, signal: AbortSignal): Promise<TargetModel | null> {
  return retry(signal, async () => {
    try {
      return (await model.widget_manager.get_model(id)) ?? null;
    } catch {
      return null;
    }
  });
}

/** Repeats `attempt`, with growing delays, until it returns a result or `signal` aborts. */
async function retry<T>(signal: AbortSignal, attempt: () => Promise<T | null>): Promise<T | null> {
  for (let delay = FIRST_DELAY; !signal.aborted; delay = Math.min(delay * 1.5, MAX_DELAY)) {
    const found = await attempt();
    if (found !== null) return found;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, delay);
      onAbort(signal, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  return null;
}
