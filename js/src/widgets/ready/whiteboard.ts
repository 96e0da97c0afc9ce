/**
 * A whiteboard. The picture is a shared state. Each stroke is stored in pieces of about fifty points, under keys with its
 * painter and its start time: strokes grow on all pages, late joiners receive all of them, and painters can take theirs back.
 * Pointers are presence states, which have no history.
 */
import type { BusView } from "../view.js";
import { Pen, type Piece, type Point } from "./pen.js";
import { throttle, frame, h, hueOf, nameOf, errorText } from "./ui.js";
import css from "./whiteboard.css";

interface Pointer {
  readonly x: number;
  readonly y: number;
}

export const WIDTH = 2000;
export const HEIGHT = 1200;
const COLOURS = { Black: "#1f1f1f", Red: "#d32f2f", Orange: "#f57c00", Green: "#388e3c", Blue: "#1976d2", Violet: "#7b1fa2" };
const RUBBER = "#ffffff";
const WIDTHS = { Fine: 5, Medium: 12, Broad: 32 };
/** The interval between two pointer updates, in milliseconds. */
const POINTING = 50;

export function render(view: BusView<Piece>): void {
  const { client, bus, model, signal } = view;
  const board = view.state();
  const canvas = h("canvas", {
    tabIndex: 0,
    role: "application",
    "aria-label": "The board. Arrow keys move the pen, the space bar puts it down and lifts it.",
  });
  const cursors = h("div", { class: "ebus-cursors", "aria-hidden": "true" });
  const problem = h("div", { class: "ebus-error ebus-small", role: "alert" });
  const count = h("span", { class: "ebus-dim ebus-small" });
  const pen = new Pen(canvas, { width: WIDTH, height: HEIGHT });

  // --- tools ---

  const choice = <V>(
    label: string,
    options: Record<string, V>,
    chosen: V,
    look: (button: HTMLElement, value: V) => void,
    choose: (value: V) => void,
  ) => {
    const group = h("div", { class: "ebus-choice", role: "group", "aria-label": label });
    for (const [name, value] of Object.entries(options)) {
      const button = h("button", { type: "button", title: name, "aria-label": name, "aria-pressed": String(value === chosen) });
      button.addEventListener("click", () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        choose(value);
      });
      look(button, value);
      group.append(button);
    }
    return group;
  };
  const paint = (button: HTMLElement, colour: string) => {
    button.append(h("span", { class: colour === RUBBER ? "ebus-rubber" : "ebus-blot", "--colour": colour }));
  };
  const stretch = (button: HTMLElement, width: number) => {
    button.append(h("span", { class: "ebus-blot", "--colour": "currentColor", "--size": `${4 + width / 3}px` }));
  };
  const tool = (name: string, title: string, click: () => void) => h("button", { type: "button", title, click }, name);
  const undo = tool("Undo", "Take back your last stroke (Ctrl+Z)", () => takeBack(strokes().filter(isMine).at(-1)));
  const clearMine = tool("Clear mine", "Take back everything you have drawn", () => takeBack(...strokes().filter(isMine)));
  const clearAll = tool("Clear all", "Empty the board, for everyone", () => sure());
  const png = tool("PNG", "Save the picture", () => save());

  frame(view, "whiteboard", String(model.get("title")), css, count).append(
    h(
      "div",
      { class: "ebus-tools", role: "toolbar", "aria-label": "Drawing" },
      choice("Colour", { ...COLOURS, Rubber: RUBBER }, pen.colour, paint, (colour) => (pen.colour = colour)),
      choice("Width", WIDTHS, pen.stroke, stretch, (width) => (pen.stroke = width)),
      h("div", { class: "ebus-choice" }, undo, clearMine, clearAll, png),
    ),
    h("div", { class: "ebus-board" }, canvas, cursors),
    problem,
  );

  // --- the picture ---

  const me = () => encodeURIComponent(client.you?.user || client.you?.id || "someone").slice(0, 60);
  const isMine = (keys: readonly string[]) => keys[0]?.startsWith(`${me()}/`) ?? false;
  /** Returns the keys of each stroke's pieces, in the order in which the strokes were begun: the same on every page. */
  const strokes = (): string[][] => {
    const found = new Map<string, string[]>();
    for (const key of board.keys()) {
      const stroke = key.slice(0, key.lastIndexOf("/"));
      found.set(stroke, [...(found.get(stroke) ?? []), key]);
    }
    const begun = (stroke: string) => stroke.split("/").at(-1) ?? "";
    return [...found].sort(([a], [b]) => (begun(a) < begun(b) ? -1 : begun(a) > begun(b) ? 1 : a < b ? -1 : 1)).map(([, keys]) => keys);
  };
  const draw = () => {
    const all = strokes();
    const mine = all.some(isMine);
    pen.draw(
      all
        .flat()
        .map((key) => board.get(key))
        .filter((piece) => piece !== undefined),
    );
    undo.disabled = clearMine.disabled = !mine;
    clearAll.disabled = all.length === 0;
    count.textContent = all.length === 0 ? "" : `${all.length} stroke${all.length === 1 ? "" : "s"}`;
  };
  let drawing = 0;
  const redraw = () => (drawing ||= requestAnimationFrame(() => ((drawing = 0), draw())));
  board.onChange(redraw, { signal });
  board.ready.then(redraw, (error: unknown) => (problem.textContent = errorText(error)));
  draw();

  // --- drawing ---

  const tell = (written: Promise<unknown>) => {
    written.then(
      () => (problem.textContent = ""),
      (error: unknown) => (problem.textContent = errorText(error)),
    );
  };
  const takeBack = (...gone: (readonly string[] | undefined)[]) => {
    for (const key of gone.flat()) if (key !== undefined) tell(board.delete(key));
  };
  let stroke = "";
  pen.onDown = () => (stroke = `${me()}/${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`);
  pen.onPiece = (nth, points) => {
    tell(board.set(`${stroke}/${String(nth).padStart(4, "0")}`, { colour: pen.colour, width: pen.stroke, points }));
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    undo.click();
  });
  let asked: ReturnType<typeof setTimeout> | undefined;
  const sure = () => {
    const said = asked !== undefined;
    clearTimeout(asked);
    asked = said ? undefined : setTimeout(() => ((asked = undefined), (clearAll.textContent = "Clear all")), 3000);
    clearAll.textContent = said ? "Clear all" : "Sure?";
    if (said) takeBack(...strokes());
  };
  const save = () => {
    canvas.toBlob((blob) => {
      if (!blob) return;
      const link = h("a", { href: URL.createObjectURL(blob), download: `${String(model.get("title"))}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  };

  // --- pointers ---

  let at: Point | null = null;
  const point = throttle(POINTING, () => bus.presence.set(at && { x: Math.round(at.x), y: Math.round(at.y) }), signal);
  pen.onMove = (where) => {
    at = where;
    point();
  };
  const shown = new Map<string, HTMLElement>();
  bus.presence.on(
    (seats) => {
      const here = new Set<string>();
      for (const { who, state, status } of seats) {
        const { x, y } = (state ?? {}) as Partial<Pointer>;
        if (who.id === client.you?.id || status !== "here" || typeof x !== "number" || typeof y !== "number") continue;
        here.add(who.id);
        let cursor = shown.get(who.id);
        if (!cursor) shown.set(who.id, (cursor = h("div", { class: "ebus-cursor", "--hue": hueOf(who) }, h("span", {}, nameOf(who)))));
        cursor.style.left = `${(100 * x) / WIDTH}%`;
        cursor.style.top = `${(100 * y) / HEIGHT}%`;
        cursors.append(cursor);
      }
      for (const [id, cursor] of shown) if (!here.has(id) && shown.delete(id)) cursor.remove();
    },
    { signal },
  );
}
