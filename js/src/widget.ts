/** What the entries for anywidget are given, and what they read from it: only what they use. */
import type { BusOptions } from "./bus.js";
import { connect, type Client } from "./client.js";
import { viaKernel } from "./comm.js";

export interface WidgetManager {
  get_model(id: string): Promise<TargetModel> | undefined;
}

/** anywidget's view of the model that brought us. */
export interface HostModel {
  get(name: string): unknown;
  on(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  off(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBufferView[]): void;
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
  /** The client in the kernel that made it, and whether its broker is there too, where pages can't reach it. */
  readonly kernel?: string;
  readonly embedded?: boolean;
}

/** A client for a widget: on the page's own connection if it can have one, else by way of the widget's kernel. */
export function clientOf(props: Props): Client {
  const { kernel: name, embedded = false } = props.model.get("_bus") as BusRef;
  const kernel = name ? { name, connect: viaKernel(name, props), only: embedded } : undefined;
  return connect(undefined, { signal: props.signal, kernel });
}

/** The bus that a model names. Its kernel has made it, and knows what it is: the page only joins. */
export function busOf(model: HostModel): readonly [string, BusOptions] {
  const { scope, owner = "", name, cap = "" } = model.get("_bus") as BusRef;
  return [name, { scope, owner, cap, create: false }];
}
