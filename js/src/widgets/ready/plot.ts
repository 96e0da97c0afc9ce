/** A plot of the messages per second over the last minutes, of all buses and of the selected one. Drawn by uPlot. */
import uPlot from "uplot";

import uplotCss from "uplot/dist/uPlot.min.css";

import { h } from "./ui.js";

const SAMPLES = 150;
const HEIGHT = 150;

export class Plot {
  readonly el = h(
    "div",
    { class: "ebus-plot", role: "img", "aria-label": "Messages a second over the last minutes" },
    h("style", {}, uplotCss),
  );
  readonly #data: [number[], number[], (number | null)[]] = [[], [], []];
  readonly #plot: uPlot;

  constructor(signal: AbortSignal) {
    // Evaluated at every drawing, so that the plot follows the theme.
    const colour = (name: string) => () => getComputedStyle(this.el).getPropertyValue(name).trim() || "#888";
    const axis = { stroke: colour("--ebus-ink2"), grid: { stroke: colour("--ebus-line"), width: 1 }, ticks: { show: false } };
    this.#plot = new uPlot(
      {
        width: 300,
        height: HEIGHT,
        cursor: { y: false },
        scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
        axes: [axis, { ...axis, size: 44 }],
        series: [
          {},
          { label: "all", stroke: colour("--ebus-ink2"), width: 1.5, value: (_, v: number | null) => v?.toFixed(1) ?? "–" },
          { label: "chosen", stroke: colour("--ebus-brand"), width: 2, value: (_, v: number | null) => v?.toFixed(1) ?? "–" },
        ],
      },
      this.#data,
      this.el,
    );
    const observer = new ResizeObserver(
      ([entry]) => entry && this.#plot.setSize({ width: Math.max(120, entry.contentRect.width), height: HEIGHT }),
    );
    observer.observe(this.el);
    const themes = new MutationObserver(() => this.#plot.redraw());
    themes.observe(document.body, { attributes: true });
    signal.addEventListener("abort", () => {
      observer.disconnect();
      themes.disconnect();
      this.#plot.destroy();
    });
  }

  add(all: number, chosen: number | null): void {
    const [times, ...series] = this.#data;
    times.push(Date.now() / 1000);
    series[0].push(all);
    series[1].push(chosen);
    if (times.length > SAMPLES) for (const values of this.#data) values.shift();
    this.#plot.setData(this.#data);
  }

  /** Another bus is selected; its curve begins anew. */
  select(name: string): void {
    this.#data[2].fill(null);
    this.#plot.setData(this.#data);
    this.el.setAttribute("aria-label", `Messages a second over the last minutes: of all buses${name && `, and of ${name}`}`);
  }
}
