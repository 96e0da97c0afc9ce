/**
 * An inspector of the buses that the page may open: their participants, their write rates, and the messages of a selected
 * bus. On that bus the page is a participant like any other.
 */
import type { Lagged } from "../../client/index.js";
import type { BusView } from "../view.js";
import css from "./inspector.css";
import { Plot } from "./plot.js";
import { throttle, frame, fullNameOf, h, hueOf, nameOf, errorText } from "./ui.js";

interface Listed {
  readonly address: string;
  readonly scope: string;
  readonly name: string;
  readonly participants: number;
  readonly last: number | null;
  readonly spec: { readonly type?: string; readonly retain?: string; readonly size?: number };
}

/** The interval between two listings, in milliseconds. */
const INTERVAL = 2_000;
/** The size of a bus whose spec does not state one. */
const DEFAULT_SIZE = 1_000;
/** The number of rows, and of messages, in the page. */
const SHOWN = 100;
const TAIL = 60;

export function render(view: BusView): void {
  const { client, model, signal } = view;
  const only = String(model.get("scope"));
  const search = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter buses by name" });
  const rows = h("tbody");
  const head = h(
    "tr",
    {},
    ...["Bus", "Here", "Last", "A second"].map((title) => h("th", { "data-number": String(title !== "Bus") }, title)),
  );
  const table = h("table", { "aria-label": "Buses" }, h("thead", {}, head), rows);
  const plot = new Plot(signal);
  const about = h("div", { class: "ebus-about" }, "Choose a bus to listen to it.");
  const tail = h("ol", { class: "ebus-tail", role: "log", "aria-label": "Messages", tabIndex: 0 });
  frame(view, "inspector", String(model.get("title")), css, search).append(h("div", { class: "ebus-buses" }, table), plot.el, about, tail);

  // --- all buses ---

  let buses: readonly Listed[] = [];
  let rates = new Map<string, number>();
  let before: { at: number; last: Map<string, number> } | null = null;
  let selected = "";

  const look = async () => {
    const found = (await client.buses()) as unknown as readonly Listed[];
    const at = performance.now();
    const last = new Map(found.map((bus) => [bus.address, bus.last ?? 0]));
    const past = before;
    if (past) {
      const seconds = (at - past.at) / 1000;
      const rate = (address: string) =>
        Math.max(0, (last.get(address) ?? 0) - (past.last.get(address) ?? last.get(address) ?? 0)) / seconds;
      rates = new Map(found.map(({ address }) => [address, rate(address)]));
      plot.add(
        [...rates.values()].reduce((a, b) => a + b, 0),
        selected ? (rates.get(selected) ?? 0) : null,
      );
    }
    before = { at, last };
    buses = found.filter(({ scope }) => !only || scope === only);
    draw();
  };
  const draw = () => {
    const wanted = search.value.toLowerCase();
    const shown = buses.filter(({ address }) => address.toLowerCase().includes(wanted));
    const sorted = [...shown].sort((a, b) => (a.address < b.address ? -1 : 1));
    const focused = (document.activeElement as HTMLElement | null)?.dataset.address;
    const lines: HTMLElement[] = [];
    let scope = "";
    for (const bus of sorted.slice(0, SHOWN)) {
      if (bus.scope !== scope)
        lines.push(h("tr", { class: "ebus-scope" }, h("th", { colSpan: 4, scope: "colgroup" }, `scope ${(scope = bus.scope)}`)));
      lines.push(rowOf(bus));
    }
    if (sorted.length > SHOWN)
      lines.push(h("tr", {}, h("td", { colSpan: 4, class: "ebus-dim" }, `and ${sorted.length - SHOWN} more: filter them`)));
    rows.replaceChildren(...lines);
    if (focused) rows.querySelector<HTMLElement>(`[data-address="${CSS.escape(focused)}"]`)?.focus();
  };
  const rowOf = ({ address, name, participants, last }: Listed) => {
    const button = h(
      "button",
      {
        type: "button",
        "data-address": address,
        "aria-pressed": String(address === selected),
        title: address,
        click: () => listen(address),
      },
      name,
    );
    const rate = rates.get(address);
    const cells = [String(participants), last === null ? "–" : String(last), rate === undefined ? "–" : rate.toFixed(1)];
    return h("tr", {}, h("td", {}, button), ...cells.map((text) => h("td", { "data-number": "true" }, text)));
  };
  search.addEventListener("input", draw);

  const poll = async () => {
    while (!signal.aborted) {
      // A hidden or disconnected page sends no requests.
      if (client.status === "live" && document.visibilityState === "visible")
        await look().catch((error: unknown) => note(errorText(error)));
      await new Promise((resolve) => setTimeout(resolve, INTERVAL));
    }
  };
  client.onStatus((status) => status === "live" && void look().catch(() => undefined), { signal });
  void poll();

  // --- the selected bus ---

  const add = (line: HTMLElement) => {
    const follow = tail.scrollHeight - tail.scrollTop - tail.clientHeight < 30;
    tail.append(line);
    if (tail.childElementCount > TAIL) tail.firstElementChild?.remove();
    if (follow) tail.scrollTop = tail.scrollHeight;
  };
  const note = (text: string) => add(h("li", { class: "ebus-error" }, text));

  let listening = new AbortController();
  signal.addEventListener("abort", () => listening.abort(), { once: true });
  const listen = (address: string) => {
    listening.abort();
    listening = new AbortController();
    selected = address === selected ? "" : address;
    plot.select(selected && (selected.split("/").at(-1) ?? selected));
    tail.replaceChildren();
    draw();
    if (!selected) return void (about.textContent = "Choose a bus to listen to it.");
    const bus = client.bus(selected, { create: false, signal: listening.signal });
    const counted = { lags: 0, missed: 0 };
    let names = "";
    const describe = throttle(
      200,
      () => {
        const { type = "any value", retain = "log", size = DEFAULT_SIZE } = bus.spec ?? {};
        const lag = counted.lags > 0 ? ` · lagged ${counted.lags} times, missed ${counted.missed}` : " · no lag";
        const filter = bus.filteredBy && ` · filtered by ${bus.filteredBy}`;
        about.textContent = `${address} · ${type || "any value"} · ${retain} of ${size}${filter}${lag} · ${names}`;
      },
      listening.signal,
    );
    about.textContent = address;
    bus.ready.then(describe, (error: unknown) => note(errorText(error)));
    bus.presence.on(
      (seats) => {
        names = seats.map(({ who, status }) => `${nameOf(who)} (${status === "here" ? who.kind : "away"})`).join(", ");
        describe();
      },
      { signal: listening.signal },
    );
    bus.onMessage(
      ({ offset, time, sender, key, deleted, value }) => {
        const from = h("span", { class: "ebus-name", "--hue": hueOf(sender), title: fullNameOf(sender) }, nameOf(sender));
        const clock = new Date(time * 1000).toLocaleTimeString();
        const what = deleted ? "removed" : wordsFor(value);
        add(
          h("li", {}, h("span", { class: "ebus-dim" }, `${offset} ${clock}`), from, h("code", {}, key === null ? what : `${key}: ${what}`)),
        );
      },
      {
        since: -20,
        signal: listening.signal,
        onError: (error) => {
          note(error.message);
          if (error.code === "lagged") {
            counted.lags += 1;
            counted.missed += (error as Partial<Lagged>).skipped ?? 0;
          }
          describe();
        },
      },
    );
  };
}

/** Returns a value as one line of text. */
function wordsFor(value: unknown): string {
  const plain = (_: string, part: unknown): unknown => {
    if (typeof part === "bigint") return String(part);
    if (ArrayBuffer.isView(part)) return `${part.constructor.name} of ${part.byteLength} bytes`;
    return part;
  };
  const text = (JSON.stringify(value, plain) as string | undefined) ?? "undefined";
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
