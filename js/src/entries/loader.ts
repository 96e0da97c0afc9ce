/**
 * The module that each widget carries. It loads the entry points, and calls the one that the trait `_entry` names.
 *
 * The server that serves the page serves them too. Where no server does (VS Code, Colab, a broker embedded in the kernel),
 * the kernel sends their text.
 *
 * anywidget gives `initialize` two seconds. If loading takes longer, `initialize` returns without the exports, and the entry
 * point still runs when it is there.
 */
interface LoaderModel {
  get(name: string): unknown;
  on(event: string, listener: (content: { ebus?: string; text?: string }) => void): void;
  off(event: string, listener: (content: { ebus?: string; text?: string }) => void): void;
  send(content: unknown): void;
}

type Entries = Record<string, (props: { model: LoaderModel; signal: AbortSignal }) => unknown>;

/** How long `initialize` waits, in milliseconds. */
const PATIENCE = 1500;
const CLIENT: unique symbol = Symbol.for("ebus.client.v1");

function baseUrl(): string {
  const config = document.getElementById("jupyter-config-data")?.textContent;
  return (config && (JSON.parse(config) as { baseUrl?: string }).baseUrl) || document.body.dataset.baseUrl || "/";
}

/** Rejects, rather than throws, where the page has a broken configuration or no origin: then the kernel is asked. */
async function fromServer(model: LoaderModel): Promise<Entries> {
  const url = new URL(`${baseUrl()}ebus/attach.js`, location.origin);
  url.searchParams.set("v", String(model.get("_version")));
  return (await import(url.href)) as Entries;
}

/** Requests the text from the kernel, once for a page, however many widgets ask. */
function fromKernel(model: LoaderModel): Promise<Entries> {
  const page = globalThis as { [CLIENT]?: Promise<Entries> | undefined };
  page[CLIENT] ??= new Promise<Entries>((resolve, reject) => {
    const received = ({ ebus, text }: { ebus?: string; text?: string }) => {
      if (ebus !== "client" || !text) return;
      model.off("msg:custom", received);
      import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))).then(resolve, reject);
    };
    model.on("msg:custom", received);
    model.send({ ebus: "client" });
  });
  return page[CLIENT];
}

function load(model: LoaderModel): Promise<Entries> {
  return fromServer(model).catch(() => fromKernel(model));
}

export default {
  async initialize(props: { model: LoaderModel; signal: AbortSignal }): Promise<unknown> {
    const attached = load(props.model)
      .then((entries) => entries[String(props.model.get("_entry"))]?.(props))
      .catch((error: unknown) => {
        console.warn("[ebus] the page's client could not be loaded:", error);
        return {};
      });
    return Promise.race([attached, new Promise((resolve) => setTimeout(resolve, PATIENCE, {}))]);
  },
  /** anywidget calls this for the widgets that have a view. */
  async render(props: { model: LoaderModel; el: HTMLElement; signal: AbortSignal }): Promise<void> {
    try {
      await (await load(props.model)).attachFace?.(props);
    } catch (error) {
      props.el.textContent = `ebus: this widget cannot be shown, because its code could not be loaded (${String(error)}). Reload the page.`;
    }
  },
};
