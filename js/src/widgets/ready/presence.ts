/**
 * The participants of a bus, as the server knows them: people, each once however many pages they have open, and kernels with
 * their activity. Participants that have lost their connection stay for a while, dimmed.
 */
import type { Seat } from "../../client/index.js";
import type { BusView } from "../view.js";
import css from "./presence.css";
import { avatar, frame, h, nameOf, errorText } from "./ui.js";

interface Person {
  readonly seat: Seat;
  /** The number of the person's connected pages. */
  pages: number;
}

const DOING: Readonly<Record<string, string>> = { idle: "idle", busy: "busy", restarting: "restarting", dead: "dead" };

export function render(view: BusView): void {
  const { client, bus, model, signal } = view;
  const count = h("span", { class: "ebus-dim ebus-small" });
  const people = h("ul", { class: "ebus-people", "aria-label": "People" });
  const kernels = h("ul", { class: "ebus-kernels", "aria-label": "Kernels" });
  const news = h("div", { class: "ebus-hidden", role: "status" });
  const empty = h("p", { class: "ebus-dim ebus-nobody" }, "Connecting…");
  frame(view, "presence", String(model.get("title")), css, count).append(h("div", { class: "ebus-body" }, empty, people, kernels), news);

  let known: Set<string> | null = null;
  const draw = (seats: readonly Seat[]) => {
    const byUser = new Map<string, Person>();
    for (const seat of seats.filter(({ who }) => who.kind !== "kernel")) {
      const key = `${seat.who.kind}:${seat.who.user || seat.who.id}`;
      const person = byUser.get(key) ?? { seat, pages: 0 };
      person.pages += seat.status === "here" ? 1 : 0; // a page that was reloaded leaves an away seat behind
      byUser.set(key, person);
    }
    const sorted = [...byUser.values()].sort((a, b) => a.seat.since - b.seat.since);
    people.replaceChildren(...sorted.map((person) => personOf(person, person.seat.who.user === client.you?.user)));
    kernels.replaceChildren(...seats.filter(({ who }) => who.kind === "kernel").map(kernelOf));
    empty.hidden = seats.length > 0;
    const here = sorted.filter((person) => person.pages > 0).map(({ seat }) => nameOf(seat.who));
    count.textContent = `${here.length} here`;

    // Screen readers announce changes only, and not the first list.
    const before = known;
    known = new Set(here);
    if (!before) return;
    const came = here.filter((name) => !before.has(name));
    const left = [...before].filter((name) => !here.includes(name));
    const said = [came.length > 0 ? `${came.join(", ")} joined.` : "", left.length > 0 ? `${left.join(", ")} left.` : ""].filter(Boolean);
    if (said.length > 0) news.textContent = said.join(" ");
  };
  bus.presence.on(draw, { signal });
  bus.ready.catch((error: unknown) => (empty.textContent = errorText(error)));
}

function personOf({ seat: { who }, pages }: Person, isMe: boolean): HTMLElement {
  const here = pages > 0;
  const more = [isMe ? "you" : "", who.kind === "page" ? "" : who.kind, here ? "" : "away", pages > 1 ? `${pages} pages` : ""].filter(
    Boolean,
  );
  const name = h(
    "span",
    { class: "ebus-who" },
    h("span", { class: "ebus-label" }, nameOf(who)),
    h("span", { class: "ebus-dim ebus-small" }, more.join(" · ")),
  );
  return h("li", { class: "ebus-person", "data-status": here ? "here" : "away" }, avatar(who), name);
}

function kernelOf({ who, status, activity }: Seat): HTMLElement {
  const doing = DOING[activity] ?? (status === "here" ? "connected" : "away");
  const label = h("span", { class: "ebus-label" }, `kernel of ${nameOf(who)}`);
  return h(
    "li",
    { class: "ebus-kernel", "data-activity": doing, title: `Kernel ${who.kernelId}` },
    h("span", { class: "ebus-dot" }),
    label,
    h("span", { class: "ebus-dim ebus-small" }, doing),
  );
}
