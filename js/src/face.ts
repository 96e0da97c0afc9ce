/**
 * A widget with a face: a ready-made one of the Python package. Its page side is a small module of its own,
 * `widgets/NAME.js` (the trait `_face` is the name), which draws what the bus says and writes what the person does.
 */
import type { Bus } from "./bus.js";
import type { Client } from "./client.js";
import { State } from "./state.js";
import { busOf, clientOf, type HostModel, type Props } from "./widget.js";

/** What such a module is given. Everything ends with `signal`. */
export interface Face<T = unknown> {
  readonly client: Client;
  /** The bus that the widget is about, open on the page's one connection. */
  readonly bus: Bus<T>;
  /** The same as a shared state, where the bus retains by key. */
  state(): State<T>;
  readonly model: HostModel;
  readonly el: HTMLElement;
  readonly signal: AbortSignal;
}

interface FaceModule {
  render(face: Face): void;
}

/** Draw one view of a widget. */
export async function attachFace(props: Props & { readonly el: HTMLElement }): Promise<void> {
  const module = await (import.meta.url.startsWith("blob:") ? sent(props) : served(props.model));
  if (props.signal.aborted) return;
  const client = clientOf(props);
  const bus = client.bus(...busOf(props.model));
  module.render({ ...props, client, bus, state: () => new State(bus) });
}

function served(model: HostModel): Promise<FaceModule> {
  const url = new URL(`./widgets/${String(model.get("_face"))}.js`, import.meta.url);
  url.searchParams.set("v", String(model.get("_version")));
  return import(url.href) as Promise<FaceModule>;
}

/** Where no server serves it, its kernel sends its text. */
function sent({ model, signal }: Props): Promise<FaceModule> {
  return new Promise((resolve, reject) => {
    const heard = (said?: unknown) => {
      const { ebus, text } = said as { ebus?: string; text?: string };
      if (ebus !== "face" || !text) return;
      model.off("msg:custom", heard);
      import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))).then(resolve, reject);
    };
    model.on("msg:custom", heard);
    signal.addEventListener("abort", () => model.off("msg:custom", heard), { once: true });
    model.send({ ebus: "face" });
  });
}
