/** The parts of the hosts' widget models that the widgets use, and the client and the bus that a model names. */
import { connect, type BusOptions, type Client, type Spec } from "../client/index.js";
import { viaKernel, type CommModel } from "../transports/comm.js";
import { orElse } from "../transports/fallback.js";

export interface WidgetManager {
  get_model(id: string): Promise<TargetModel> | undefined;
}

/** anywidget's view of the model of one of our widgets. */
export interface HostModel extends CommModel {
  get(name: string): unknown;
  readonly widget_manager: WidgetManager;
}

/** The model of any other widget: `WidgetModel` of `@jupyter-widgets/base`. */
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
  /** The life of the widget. */
  readonly signal: AbortSignal;
}

/** The trait `_bus`: the Python side's reference to a bus. */
interface BusRef {
  readonly scope: string;
  readonly owner?: string;
  readonly name: string;
  readonly cap?: string;
  /** The fields of the spec that the widget insists on: that nobody filters what people write, for one. */
  readonly insist?: Spec;
  /** The client in the kernel that created the widget. */
  readonly kernel?: string;
  /** True if the broker is in that kernel too, where pages cannot reach it. */
  readonly embedded?: boolean;
}

/** Returns a client for a widget, on the page's own connection if possible, else through the widget's kernel. */
export function clientOf(props: Props): Client {
  const { kernel: name, embedded = false } = props.model.get("_bus") as BusRef;
  const kernel = name ? { name, way: orElse(viaKernel(name, props)), only: embedded } : undefined;
  return connect(undefined, { signal: props.signal, kernel });
}

/** Returns the arguments that open a model's bus. The page only joins: the kernel has created the bus with its spec. */
export function busOf(model: HostModel): readonly [string, BusOptions] {
  const { scope, owner = "", name, cap = "", insist } = model.get("_bus") as BusRef;
  return [name, { ...insist, scope, owner, cap, create: false }];
}
