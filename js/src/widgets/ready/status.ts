/**
 * The status of the page on a bus: live, reconnecting, lagged or closed; with the kernel's activity, which is independent of
 * it, and a record of the changes.
 */
import type { BusView } from "../view.js";
import css from "./status.css";
import { frame, h, nameOf, watchStatus, errorText } from "./ui.js";

/** How long "lagged" is shown, in milliseconds. */
const LAG_SHOWN = 15_000;
/** The number of lines of the record. */
const RECORD = 50;

const KERNEL: Readonly<Record<string, string>> = {
  idle: "idle",
  busy: "busy: it runs a cell. Pages go on without it",
  restarting: "restarting. Pages go on without it",
  dead: "dead. Pages go on without it; restart it to compute",
};

export function render(view: BusView): void {
  const { client, bus, model, signal } = view;
  const word = h("strong", { class: "ebus-word" });
  const means = h("span", { class: "ebus-means" });
  const state = h("div", { class: "ebus-state", role: "status" }, h("span", { class: "ebus-dot" }), h("div", {}, word, means));
  const [who, where, name, kernel] = [h("dd"), h("dd"), h("dd"), h("dd")];
  const facts = h("dl", {}, h("dt", {}, "You"), who, h("dt", {}, "Server"), where, h("dt", {}, "Bus"), name, h("dt", {}, "Kernel"), kernel);
  const record = h("ol", { class: "ebus-record", "aria-label": "Changes of the status", tabIndex: 0 });
  frame(view, "status", String(model.get("title")), css).append(state, facts, record);

  let now = { status: "connecting", means: "" };
  let since = Date.now();
  let lag: ReturnType<typeof setTimeout> | undefined;
  let lagged = "";

  const show = () => {
    const status = lagged && now.status === "live" ? "lagged" : now.status;
    state.dataset.status = status;
    word.textContent = status;
    means.textContent = status === "lagged" ? lagged : now.means;
    who.textContent = client.you ? `${nameOf(client.you)} (${client.you.kind})` : "–";
    name.textContent = bus.uri.split("#")[0] || bus.name;
  };
  const note = (text: string) => {
    const clock = new Date().toLocaleTimeString();
    record.prepend(h("li", {}, h("time", { class: "ebus-dim" }, clock), text));
    if (record.childElementCount > RECORD) record.lastElementChild?.remove();
  };
  watchStatus(view, (next) => {
    const seconds = Math.round((Date.now() - since) / 100) / 10;
    if (next.status !== now.status || record.childElementCount === 0) {
      note(next.status === "live" && now.status === "reconnecting" ? `live again after ${seconds} s` : next.status);
      since = Date.now();
    }
    now = next;
    show();
  });
  bus.ready.then(show, (error: unknown) => note(errorText(error)));
  const coordinates = model.get("_bus") as { embedded?: boolean };
  where.textContent = coordinates.embedded ? "none: the buses live in this kernel" : location.host;

  bus.onMessage(() => undefined, {
    signal,
    onError: (error) => {
      note(error.message);
      if (error.code !== "lagged") return;
      lagged = `The connection was lost for too long: ${error.message} Messages from now on are complete.`;
      clearTimeout(lag);
      lag = setTimeout(() => ((lagged = ""), show()), LAG_SHOWN);
      show();
    },
  });

  const mine = (model.get("_kernel") as string) || null;
  kernel.textContent = "–";
  bus.presence.on(
    (seats) => {
      const seat = seats.find(({ who: { kind, kernelId } }) => kind === "kernel" && (!mine || kernelId === mine));
      const says = seat ? (KERNEL[seat.activity] ?? (seat.status === "here" ? "connected" : "away")) : "gone. Pages go on without it";
      if (kernel.textContent !== says && kernel.textContent !== "–") note(`kernel ${says.split(/[.:]/)[0] ?? ""}`);
      kernel.textContent = says;
    },
    { signal },
  );
}
