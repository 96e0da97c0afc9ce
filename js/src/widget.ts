/** What the entries for anywidget are given, and what they read from it: only what they use. */
import type { BusOptions } from "./bus.js";

export interface WidgetManager {
  get_model(id: string): Promise<TargetModel> | undefined;
}

/** anywidget's view of the model that brought us. */
export interface HostModel {
  get(name: string): unknown;
  on(event: string, listener: () => void): void;
  off(event: string, listener: () => void): void;
  send(content: unknown): void;
  readonly widget_manager: WidgetManager;
}

/** The model of someone else's widget: `WidgetModel` of `@jupyter-widgets/base`. */
export interface TargetModel {
  get(name: string): unknown;
  set_state(state: Record<string, unknown>): void;
  serialize(state: Record<string, unknown>): Record<string, unknown>;
  on(event: string, listener: () => void): void;
  off(event: string, listener: () => void): void;
  readonly _state_lock?: unknown;
  readonly widget_manager: WidgetManager;
  readonly constructor: unknown;
}

export interface Props {
  readonly model: HostModel;
  readonly signal: AbortSignal;
}

/** How the Python side names a bus, in the trait `_bus`. */
interface BusRef {
  readonly scope: string;
  readonly owner?: string;
  readonly name: string;
  readonly cap?: string;
}

/** The bus that a model names. Its kernel has made it, and knows what it is: the page only joins. */
export function busOf(model: HostModel): readonly [string, BusOptions] {
  const { scope, owner = "", name, cap = "" } = model.get("_bus") as BusRef;
  return [name, { scope, owner, cap, create: false }];
}
