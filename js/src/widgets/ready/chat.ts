/**
 * A chat room on a log bus of `{text}`. Names and colours come from the senders as the server knows them, the typing
 * indicator from presence. Unsent text survives a reload of the page.
 */
import type { Message } from "../../client/index.js";
import type { BusView } from "../view.js";
import css from "./chat.css";
import { avatar, frame, fullNameOf, h, hueOf, draftStorage, nameOf, time, errorText } from "./ui.js";

interface Line {
  readonly text: string;
}

/** The number of lines in the page. */
const KEPT = 500;
/** Lines of one sender within this time have one heading, in seconds. */
const SAME_HEADING = 300;
/** How long the typing indicator stays after the last key, in milliseconds. */
const TYPING = 4000;

export function render(view: BusView<Line>): void {
  const { client, bus, model, signal } = view;
  const draft = draftStorage(view, "chat");
  const lines = h("ol", { class: "ebus-lines", role: "log", "aria-label": "Messages", tabIndex: 0 });
  const news = h("button", { class: "ebus-news ebus-primary", type: "button", hidden: true, click: () => toEnd() });
  const empty = h("p", { class: "ebus-empty ebus-dim" }, "Connecting…");
  const typing = h("div", { class: "ebus-typing ebus-dim ebus-small", role: "status" });
  const text = h("textarea", { rows: 1, maxLength: 4000, placeholder: "Say something", "aria-label": "Your message", value: draft.get() });
  const send = h("button", { class: "ebus-primary", type: "submit" }, "Send");
  const waiting = h("ol", { class: "ebus-waiting", "aria-label": "Not sent yet" });
  const form = h("form", { class: "ebus-write", submit: (event: Event) => (event.preventDefault(), say()) }, text, send);
  frame(view, "chat", String(model.get("title")), css).append(h("div", { class: "ebus-room" }, lines, empty, news), waiting, typing, form);

  // --- messages ---

  let before: Message | null = null;
  let unread = 0;
  const atEnd = () => lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;

  const toEnd = () => {
    lines.scrollTop = lines.scrollHeight;
    unread = 0;
    news.hidden = true;
  };

  const add = (line: HTMLElement, mine: boolean) => {
    const follow = mine || (atEnd() && document.visibilityState === "visible");
    empty.hidden = true;
    lines.append(line);
    if (lines.childElementCount > KEPT) lines.firstElementChild?.remove();
    if (follow) return toEnd();
    unread += 1;
    news.textContent = `${unread} new ↓`;
    news.hidden = false;
  };

  bus.onMessage(
    (message) => {
      const { sender, value } = message;
      const mine = sender.user === client.you?.user && sender.kind === client.you.kind;
      const goesOn = before?.sender.id === sender.id && message.time - before.time < SAME_HEADING;
      before = message;
      const said = h("div", { class: "ebus-said" }, value.text);
      const kind = sender.kind === "page" ? null : h("span", { class: "ebus-kind" }, sender.kind);
      const who = h(
        "div",
        { class: "ebus-who" },
        h("span", { class: "ebus-name", "--hue": hueOf(sender), title: fullNameOf(sender) }, nameOf(sender)),
        kind,
      );
      who.append(h("time", { class: "ebus-dim ebus-small" }, time(message.time)));
      add(h("li", { class: goesOn ? "ebus-same" : "" }, avatar(sender), h("div", { class: "ebus-body" }, who, said)), mine);
    },
    {
      since: "start",
      signal,
      onError: (error) => {
        before = null;
        if (error.code === "lagged") add(h("li", { class: "ebus-note ebus-dim" }, error.message), false);
      },
    },
  );
  const showEmpty = () => (empty.textContent = "No messages yet.");
  bus.history(1).then(showEmpty, (error: unknown) => (empty.textContent = errorText(error)));
  let ended = true;
  lines.addEventListener("scroll", () => (ended = atEnd()) && toEnd());
  const resized = new ResizeObserver(() => ended && toEnd());
  resized.observe(lines);
  signal.addEventListener("abort", () => resized.disconnect(), { once: true });
  document.addEventListener("visibilitychange", () => atEnd() && document.visibilityState === "visible" && toEnd(), { signal });

  // --- writing ---

  /** The lines without an answer, by the element that shows them. */
  const unsent = new Map<HTMLElement, string>();
  const keep = () => draft.set([...unsent.values(), text.value].filter(Boolean).join("\n"));

  const say = () => {
    const line = text.value.trim();
    if (!line) return;
    const sending = h("li", { class: "ebus-dim" }, line);
    // Most answers come at once; a line is shown as waiting only after a moment.
    const wait = setTimeout(() => waiting.append(sending), 300);
    unsent.set(sending, line);
    text.value = "";
    typed();
    bus
      .write({ text: line })
      .catch((error: unknown) => {
        text.value = [line, text.value].filter(Boolean).join("\n");
        typing.textContent = `Not sent: ${errorText(error)}`;
      })
      .finally(() => {
        clearTimeout(wait);
        sending.remove();
        unsent.delete(sending);
        keep();
      });
  };

  let quiet: ReturnType<typeof setTimeout> | undefined;
  let saysTyping = false;
  const sayTyping = (now: boolean) => {
    if (now !== saysTyping) bus.presence.set(now ? { typing: true } : null);
    saysTyping = now;
  };
  const typed = () => {
    keep();
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, 120)}px`;
    clearTimeout(quiet);
    sayTyping(text.value !== "");
    quiet = setTimeout(() => sayTyping(false), TYPING);
  };
  text.addEventListener("input", typed);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    say();
  });

  // --- typing ---

  bus.presence.on(
    (seats) => {
      const names = seats
        .filter(
          ({ who, status, state }) => who.id !== client.you?.id && status === "here" && (state as { typing?: boolean } | null)?.typing,
        )
        .map(({ who }) => nameOf(who));
      const all = [...new Set(names)];
      if (all.length === 0) typing.textContent = "";
      else
        typing.textContent = all.length > 3 ? "Several people are typing…" : `${all.join(", ")} ${all.length > 1 ? "are" : "is"} typing…`;
    },
    { signal },
  );
}
