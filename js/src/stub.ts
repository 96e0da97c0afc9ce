/**
 * What travels with each widget: finds the client that this page's server serves, and lets it do the work (`_entry` names
 * the function). anywidget gives `initialize` two seconds: if the client takes longer it is not waited for, and what it
 * exports is missing, but it still goes on.
 */
interface StubModel {
  get(name: string): unknown;
}

const PATIENCE = 1500;

function base(): string {
  const config = document.getElementById("jupyter-config-data")?.textContent;
  return (config && (JSON.parse(config) as { baseUrl?: string }).baseUrl) || document.body.dataset.baseUrl || "/";
}

export default {
  async initialize(props: { model: StubModel; signal: AbortSignal }): Promise<unknown> {
    const url = new URL(`${base()}ebus/client.js`, location.origin);
    url.searchParams.set("v", String(props.model.get("_version")));
    const attached = (import(url.href) as Promise<Record<string, (given: typeof props) => unknown>>)
      .then((client) => client[String(props.model.get("_entry"))]?.(props))
      .catch((error: unknown) => {
        console.warn(`[ebus] ${url.href}:`, error);
        return {};
      });
    return Promise.race([attached, new Promise((resolve) => setTimeout(resolve, PATIENCE, {}))]);
  },
};
