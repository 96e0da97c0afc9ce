/**
 * A poll on a log bus. All pages compute the same tally from the log in its order and from the senders as the server knows
 * them: each user has one vote, the last one counts, and only the user who asked may ask again, close and reopen the poll.
 * The Python side applies the same rules.
 */
import type { Message } from "../../client/index.js";
import type { BusView } from "../view.js";
import css from "./poll.css";
import { frame, h, nameOf, errorText } from "./ui.js";

type Entry =
  | { readonly type: "ask"; readonly question: string; readonly options: readonly string[] }
  | { readonly type: "vote"; readonly choice: string | null }
  | { readonly type: "close"; readonly closed: boolean };

interface Tally {
  owner: string | null;
  asker: string;
  question: string;
  options: readonly string[];
  closed: boolean;
  votes: Map<string, { choice: string; name: string }>;
}

function count(tally: Tally, { value, sender }: Message<Entry>): void {
  const { user } = sender;
  if (value.type === "ask") {
    if (tally.owner !== null && tally.owner !== user) return;
    const { question, options } = value;
    Object.assign(tally, { owner: user, asker: nameOf(sender), question, options, closed: false, votes: new Map() });
  } else if (value.type === "close") {
    if (tally.owner === user) tally.closed = value.closed;
  } else if (!tally.closed && value.choice === null) {
    tally.votes.delete(user);
  } else if (!tally.closed && value.choice !== null && tally.options.includes(value.choice)) {
    tally.votes.set(user, { choice: value.choice, name: nameOf(sender) });
  }
}

const fresh = (): Tally => ({ owner: null, asker: "", question: "", options: [], closed: false, votes: new Map() });

export function render(view: BusView<Entry>): void {
  const { client, bus, model, signal } = view;
  let tally = fresh();
  const question = h("h3", { class: "ebus-question" }, "Connecting…");
  const options = h("div", { class: "ebus-options", role: "group", "aria-label": "Answers" });
  const summary = h("span", { class: "ebus-dim", role: "status" });
  const close = h("button", { type: "button", hidden: true, click: () => void write({ type: "close", closed: !tally.closed }) });
  const problem = h("div", { class: "ebus-error ebus-small", role: "alert" });
  const foot = h("div", { class: "ebus-foot" }, summary, h("span", { class: "ebus-space" }), close);
  frame(view, "poll", String(model.get("title")), css).append(h("div", { class: "ebus-body" }, question, options, problem, foot));

  /** The user's choice that the bus has not confirmed yet; it is shown at once. */
  let chosen: { choice: string | null } | null = null;
  const me = () => client.you?.user ?? "";
  const mine = () => (chosen ? chosen.choice : (tally.votes.get(me())?.choice ?? null));
  const write = (entry: Entry) =>
    bus
      .write(entry)
      .then(() => (problem.textContent = ""))
      .catch((error: unknown) => {
        problem.textContent = errorText(error);
        chosen = null;
        draw();
      });
  const vote = (choice: string) => {
    const now = (chosen = { choice: mine() === choice ? null : choice });
    draw();
    void write({ type: "vote", ...now }).then(() => {
      if (chosen === now) chosen = null;
      draw();
    });
  };

  // The bars stay in the page; only their texts and widths change.
  const bars = new Map<string, { button: HTMLButtonElement; fill: HTMLElement; votes: HTMLElement }>();
  const build = () => {
    bars.clear();
    for (const choice of tally.options) {
      const fill = h("span", { class: "ebus-fill" });
      const votes = h("span", { class: "ebus-votes" });
      const button = h("button", { class: "ebus-option", type: "button", click: () => vote(choice) }, fill);
      button.append(h("span", { class: "ebus-check", "aria-hidden": "true" }), h("span", { class: "ebus-label" }, choice), votes);
      bars.set(choice, { button, fill, votes });
    }
    options.replaceChildren(...[...bars.values()].map(({ button }) => button));
  };
  const draw = () => {
    if (tally.options.some((choice) => !bars.has(choice)) || bars.size !== tally.options.length) build();
    const all = new Map([...tally.votes].map(([user, { choice, name }]) => [user, { choice, name }]));
    if (chosen && client.you) {
      if (chosen.choice === null) all.delete(me());
      else all.set(me(), { choice: chosen.choice, name: nameOf(client.you) });
    }
    for (const [choice, { button, fill, votes }] of bars) {
      const names = [...all.values()].filter((vote) => vote.choice === choice).map(({ name }) => name);
      const share = all.size > 0 ? names.length / all.size : 0;
      fill.style.width = `${100 * share}%`;
      votes.textContent = `${names.length} · ${Math.round(100 * share)} %`;
      button.title = names.join(", ");
      button.disabled = tally.closed;
      button.setAttribute("aria-pressed", String(mine() === choice));
      button.setAttribute("aria-label", `${choice}: ${names.length} of ${all.size} votes`);
    }
    question.textContent = tally.question || "No question has been asked yet.";
    summary.textContent =
      tally.owner === null
        ? ""
        : `${all.size} vote${all.size === 1 ? "" : "s"}${tally.closed ? " · closed" : ""} · asked by ${tally.asker}`;
    close.hidden = tally.owner === null || tally.owner !== me();
    close.textContent = tally.closed ? "Reopen" : "Close the poll";
  };

  const later = () => (drawing ||= requestAnimationFrame(() => ((drawing = 0), draw())));
  let drawing = 0;
  // After missed messages, or with another history, the count begins anew.
  const restart = () => {
    tally = fresh();
    const onMessage = (message: Message<Entry>) => {
      count(tally, message);
      later();
    };
    const stop = bus.onMessage(onMessage, {
      since: "start",
      signal,
      onError: (error) => {
        if (error.code !== "lagged") return (problem.textContent = error.message);
        stop();
        restart();
      },
    });
  };
  restart();
  bus.history(1).then(later, (error: unknown) => (question.textContent = errorText(error)));
  client.onStatus(later, { signal });
}
