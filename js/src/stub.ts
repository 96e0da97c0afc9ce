/**
 * What travels with each widget: finds the client that this page's server serves, or asks the kernel for its text where no
 * server does (VS Code, Colab, a broker embedded in the kernel), and lets it do the work (`_entry` names the function).
 * anywidget gives `initialize` two seconds: if the client takes longer it is not waited for, and what it exports is
 * missing, but it still goes on.
 */
interface StubModel {
  get(name: string): unknown;
  on(event: string, listener: (said: { ebus?: string; text?: string }) => void): void;
  off(event: string, listener: (said: { ebus?: string; text?: string }) => void): void;
  send(content: unknown): void;
}

type Entries = Record<string, (given: { model: StubModel; signal: AbortSignal }) => unknown>;

const PATIENCE = 1500;
const CLIENT: unique symbol = Symbol.for("ebus.client.v1");

function base(): string {
  const config = document.getElementById("jupyter-config-data")?.textContent;
  return (config && (JSON.parse(config) as { baseUrl?: string }).baseUrl) || document.body.dataset.baseUrl || "/";
}

function served(model: StubModel): Promise<Entries> {
  const url = new URL(`${base()}ebus/attach.js`, location.origin);
  url.searchParams.set("v", String(model.get("_version")));
  return import(url.href) as Promise<Entries>;
}

/** The client from the kernel; once for a page, however many widgets ask. */
function sent(model: StubModel): Promise<Entries> {
  const page = globalThis as { [CLIENT]?: Promise<Entries> | undefined };
  page[CLIENT] ??= new Promise<Entries>((resolve, reject) => {
    const heard = ({ ebus, text }: { ebus?: string; text?: string }) => {
      if (ebus !== "client" || !text) return;
      model.off("msg:custom", heard);
      import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))).then(resolve, reject);
    };
    model.on("msg:custom", heard);
    model.send({ ebus: "client" });
  });
  return page[CLIENT];
}

function loaded(model: StubModel): Promise<Entries> {
  return served(model).catch(() => sent(model));
}

export default {
  async initialize(props: { model: StubModel; signal: AbortSignal }): Promise<unknown> {
    const attached = loaded(props.model)
      .then((client) => client[String(props.model.get("_entry"))]?.(props))
      .catch((error: unknown) => {
        console.warn("[ebus] the page's client could not be loaded:", error);
        return {};
      });
    return Promise.race([attached, new Promise((resolve) => setTimeout(resolve, PATIENCE, {}))]);
  },
  /** Only a widget with a face has a view. */
  async render(props: { model: StubModel; el: HTMLElement; signal: AbortSignal }): Promise<void> {
    try {
      await (await loaded(props.model)).attachFace?.(props);
    } catch (error) {
      props.el.textContent = `ebus: this widget can't be shown, for its code can't be loaded (${String(error)}). Reload the page.`;
    }
  },
};
