/**
 * The views of the ready-made widgets.
 *
 * Each ready-made widget has a view module of its own, `widgets/NAME.js` (the trait `_face` is the name), which draws the
 * messages of the bus and writes the user's input.
 */
import type { Bus, Client } from "../client/index.js";
import { sharedState, type State } from "../client/state.js";
import { busOf, clientOf, type HostModel, type Props } from "./model.js";

/** The arguments of a view module. Everything ends with `signal`. */
export interface BusView<T = unknown> {
  readonly client: Client;
  /** The widget's bus, open on the page's connection. */
  readonly bus: Bus<T>;
  /** Returns the bus as a shared state, if it retains by key. */
  state(): State<T>;
  readonly model: HostModel;
  readonly el: HTMLElement;
  readonly signal: AbortSignal;
}

interface ViewModule {
  render(view: BusView): void;
}

/** Draws one view of a widget. */
export async function attachView(props: Props & { readonly el: HTMLElement }): Promise<void> {
  const module = await (import.meta.url.startsWith("blob:") ? fromKernel(props) : fromServer(props.model));
  if (props.signal.aborted) return;
  const client = clientOf(props);
  const bus = client.bus(...busOf(props.model));
  module.render({ ...props, client, bus, state: () => sharedState(client, ...busOf(props.model)) });
}

function fromServer(model: HostModel): Promise<ViewModule> {
  const url = new URL(`./widgets/${String(model.get("_face"))}.js`, import.meta.url);
  url.searchParams.set("v", String(model.get("_version")));
  return import(url.href) as Promise<ViewModule>;
}

/** Without a server, the kernel sends the text of the module. */
function fromKernel({ model, signal }: Props): Promise<ViewModule> {
  return new Promise((resolve, reject) => {
    const received = (content?: unknown) => {
      const { ebus, text } = content as { ebus?: string; text?: string };
      if (ebus !== "face" || !text) return;
      model.off("msg:custom", received);
      import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))).then(resolve, reject);
    };
    model.on("msg:custom", received);
    signal.addEventListener("abort", () => model.off("msg:custom", received), { once: true });
    model.send({ ebus: "face" });
  });
}
