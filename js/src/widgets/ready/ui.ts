/**
 * The common parts of the ready-made widgets.
 *
 * Text that people have written becomes text nodes, never markup: `h` has no other way. A widget has its final size from the
 * start; content that arrives later changes its texts, not its layout.
 */
import type { Bus, Participant } from "../../client/index.js";
import type { BusView } from "../view.js";
import theme from "./theme.css";

/** The view of any widget. */
export type AnyView = Pick<BusView, "client" | "model" | "el" | "signal"> & { readonly bus: Pick<Bus, "error" | "closed"> };

type Child = Node | string | null;
type Props = Record<string, string | number | boolean | ((event: never) => void)>;

/**
 * Creates an element. Props that are functions become event listeners; `class`, `role`, `for`, `aria-…` and `data-…` become
 * attributes, `--…` style properties, and all others properties of the element.
 */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(name, value as EventListener);
    else if (name.startsWith("--")) element.style.setProperty(name, String(value));
    else if (/^(class|role|for|aria-.*|data-.*)$/.test(name)) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Draws the widget's frame: a head with the title, the tools and the status. The widget appends its content to it. */
export function frame(view: AnyView, kind: string, title: string, css: string, ...tools: HTMLElement[]): HTMLElement {
  const head = h("div", { class: "ebus-head" }, h("span", { class: "ebus-title" }, title), h("span", { class: "ebus-space" }), ...tools);
  const root = h("section", { class: `ebus ebus-${kind}`, "aria-label": title }, h("style", {}, theme + css), head);
  head.append(statusLight(view));
  // JupyterLab's shortcuts must not intercept what is typed here.
  root.dataset.lmSuppressShortcuts = "true";
  view.el.replaceChildren(root);
  view.signal.addEventListener("abort", () => root.remove(), { once: true });
  return root;
}

export type ViewStatus = "connecting" | "live" | "reconnecting" | "closed";

/** Returns the status of the page on the bus, and an explanation for the user. */
export function statusOf({ client, bus }: AnyView): { status: ViewStatus; means: string } {
  const error = bus.error ?? client.error;
  const status = error ? "closed" : client.status;
  const means = {
    connecting: "Connecting. Your changes are sent as soon as the page is connected.",
    live: "Connected. All participants see the same.",
    reconnecting: "The server cannot be reached. The content may be outdated; your changes are kept, and sent after the reconnect.",
    closed: error ? `Closed: ${error.message}` : "Closed on this page.",
  };
  return { status, means: means[status] };
}

/** Calls `listener` with the status, now and after each change. */
export function watchStatus(view: AnyView, listener: (now: ReturnType<typeof statusOf>) => void): void {
  const look = () => {
    if (!view.signal.aborted) listener(statusOf(view));
  };
  view.client.onStatus(look, { signal: view.signal });
  void view.bus.closed.then(look);
  look();
}

function statusLight(view: AnyView): HTMLElement {
  const word = h("span");
  const light = h("span", { class: "ebus-status", role: "status" }, h("span", { class: "ebus-dot" }), word);
  watchStatus(view, ({ status, means }) => {
    light.dataset.status = status;
    light.title = means;
    word.textContent = status;
  });
  return light;
}

/** Returns the name to show for a participant, as the server knows it. */
export function nameOf({ name, user, kind }: Participant): string {
  return name || user || (kind === "kernel" ? "this kernel" : kind);
}

/** Returns the name with the username beside it: two people may have the same name, or names that look alike. */
export function fullNameOf(who: Participant): string {
  const name = nameOf(who);
  return who.user && who.user !== name ? `${name} (${who.user})` : name;
}

/** Returns the hue of a participant's colour, derived from the user: the same on every page. */
export function hueOf({ user, name, id }: Participant): number {
  let hash = 7;
  for (const letter of user || name || id) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) % 36_000;
  return (hash * 137) % 360;
}

export function avatar(who: Participant): HTMLElement {
  const words = nameOf(who)
    .split(/[\s._@-]+/u)
    .filter(Boolean);
  const initials = words
    .slice(0, 2)
    .map((word) => String.fromCodePoint(word.codePointAt(0) ?? 63))
    .join("")
    .toUpperCase();
  return h("span", { class: "ebus-avatar", "--hue": hueOf(who), "aria-hidden": "true", title: fullNameOf(who) }, initials || "?");
}

export function time(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** Returns storage for text that the user has not sent yet. It survives a reload of the page, but not the tab. */
export function draftStorage(view: AnyView, what: string): { get(): string; set(text: string): void } {
  const key = `ebus:${what}:${JSON.stringify((view.model.get("_bus") as { name?: string }).name ?? "")}`;
  try {
    sessionStorage.getItem(key);
  } catch {
    return { get: () => "", set: () => undefined }; // the page has no storage
  }
  return {
    get: () => sessionStorage.getItem(key) ?? "",
    set: (text) => (text ? sessionStorage.setItem(key, text) : sessionStorage.removeItem(key)),
  };
}

/** Returns the text of an error, for the user. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Returns a function that runs `code` at most once in `wait` milliseconds, and always after the last call. */
export function throttle(wait: number, code: () => void, signal: AbortSignal): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = -Infinity;
  const run = () => {
    timer = undefined;
    last = performance.now();
    if (!signal.aborted) code();
  };
  return () => {
    timer ??= setTimeout(run, Math.max(0, last + wait - performance.now()));
  };
}
