/**
 * What the ready-made widgets have in common. Text of people's goes into the page as text, never as markup: `h` has no other
 * way. A widget has its final size from the first moment; what it waits for changes words in it, not its shape.
 */
import type { Bus } from "../bus.js";
import type { Face } from "../face.js";
import type { Participant } from "../frames.js";
import theme from "./theme.css";

/** Any widget's face. */
export type Stage = Pick<Face, "client" | "model" | "el" | "signal"> & { readonly bus: Pick<Bus, "error" | "closed"> };

type Child = Node | string | null;
type Props = Record<string, string | number | boolean | ((event: never) => void)>;

/** An element. Props that are functions listen to events, `class` and `aria-…` are attributes, all others properties. */
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

/** The widget's frame, in the page: a head with `title` and how things stand, and whatever is appended to it. */
export function frame(face: Stage, kind: string, title: string, css: string, ...tools: HTMLElement[]): HTMLElement {
  const head = h("div", { class: "ebus-head" }, h("span", { class: "ebus-title" }, title), h("span", { class: "ebus-space" }), ...tools);
  const root = h("section", { class: `ebus ebus-${kind}`, "aria-label": title }, h("style", {}, theme + css), head);
  head.append(statusLight(face));
  // Lab's shortcuts must not take what is typed here.
  root.dataset.lmSuppressShortcuts = "true";
  face.el.replaceChildren(root);
  face.signal.addEventListener("abort", () => root.remove(), { once: true });
  return root;
}

export type Standing = "connecting" | "live" | "reconnecting" | "closed";

/** How things stand between this page and the bus, and what that means to whoever looks at it. */
export function standing({ client, bus }: Stage): { status: Standing; means: string } {
  const error = bus.error ?? client.error;
  const status = error ? "closed" : client.status;
  const means = {
    connecting: "Connecting. What you do now is sent as soon as the connection stands.",
    live: "Connected. Everyone sees what you see.",
    reconnecting: "The server is out of reach. What you see may be old; what you do is kept, and sent when it is back.",
    closed: error ? `Closed: ${error.message}` : "Closed on this page.",
  };
  return { status, means: means[status] };
}

/** Tell of every change of how things stand, beginning now. */
export function watchStanding(face: Stage, tell: (now: ReturnType<typeof standing>) => void): void {
  const look = () => {
    if (!face.signal.aborted) tell(standing(face));
  };
  face.client.onStatus(look, { signal: face.signal });
  void face.bus.closed.then(look);
  look();
}

function statusLight(face: Stage): HTMLElement {
  const word = h("span");
  const light = h("span", { class: "ebus-status", role: "status" }, h("span", { class: "ebus-dot" }), word);
  watchStanding(face, ({ status, means }) => {
    light.dataset.status = status;
    light.title = means;
    word.textContent = status;
  });
  return light;
}

/** The server's word for who someone is, as it is shown. */
export function nameOf({ name, user, kind }: Participant): string {
  return name || user || (kind === "kernel" ? "this kernel" : kind);
}

/** A colour of one's own, the same on every page: it follows from the user. */
export function hueOf({ user, name, id }: Participant): number {
  let hash = 7;
  for (const letter of user || name || id) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) % 36_000;
  return (hash * 137) % 360;
}

export function avatar(who: Participant): HTMLElement {
  const words = nameOf(who).split(/[\s._@-]+/u).filter(Boolean);
  const initials = words.slice(0, 2).map((word) => String.fromCodePoint(word.codePointAt(0) ?? 63)).join("").toUpperCase();
  return h("span", { class: "ebus-avatar", "--hue": hueOf(who), "aria-hidden": "true", title: nameOf(who) }, initials || "?");
}

export function time(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** What the person has not sent yet outlives a reload of the page; not the tab. */
export function keepsake(face: Stage, what: string): { get(): string; set(text: string): void } {
  const key = `ebus:${what}:${JSON.stringify((face.model.get("_bus") as { name?: string }).name ?? "")}`;
  try {
    sessionStorage.getItem(key);
  } catch {
    return { get: () => "", set: () => undefined }; // a page that may keep nothing
  }
  return {
    get: () => sessionStorage.getItem(key) ?? "",
    set: (text) => (text ? sessionStorage.setItem(key, text) : sessionStorage.removeItem(key)),
  };
}

/** The words of an error, for a person. */
export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Run `code` at most once in `wait` milliseconds, the last call always. */
export function calmly(wait: number, code: () => void, signal: AbortSignal): () => void {
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
