/**
 * One trait of one model, bound to a key of a shared state.
 *
 * - What comes from the state is applied with `set_state`, which does not send it to the kernel: the kernel hears the bus.
 * - A change of a trait that is named in the model's `_state_lock` came from the kernel, or from us: it is not written. The
 *   kernel sends what it sets over the bus as well, so what it sends to the model alone can only be early, or a late echo:
 *   if the bus does not agree a moment later, the bus's value is shown again.
 * - A widget may make something else of a value that it was shown: round it, clip it, or settle into it after an animation.
 *   A change that follows what was shown, and no touch of the person's, is such an echo and not written: two pages that
 *   round differently would never come to rest.
 * - Every other change is the person's, or the page's program's, and is written.
 * - What the person does before the state is there is written when it is.
 */
import { asBytes, asViews } from "./binary.js";
import { keepCaret, lastInput } from "./person.js";
import type { State } from "./state.js";
import { equal, onAbort } from "./util.js";
import type { TargetModel } from "./widget.js";

/** How long the bus may take to confirm what the kernel told the model. */
const CONFIRM = 300;

/** How long a widget may take to settle into what it was shown. */
const SETTLE = 1000;

export interface Fit {
  readonly of: unknown;
  readonly value: unknown;
}

export class BoundTrait {
  #state: State | null = null;
  /** Counts what was shown: a value that takes time to unpack is too late once a newer one is there. */
  #version = 0;
  #showing = false;
  #shownAt = -Infinity;
  #shownAgain = false;
  #touched = false;
  #check: ReturnType<typeof setTimeout> | undefined;
  /** What the kernel makes of a value that does not fit the widget. */
  #fit: Fit | null = null;
  readonly #since = performance.now();

  constructor(
    readonly target: TargetModel,
    readonly trait: string,
    readonly key: string,
    readonly readOnly: () => boolean,
    readonly signal: AbortSignal,
  ) {
    const changed = () => this.#changed();
    target.on(`change:${trait}`, changed);
    onAbort(signal, () => {
      clearTimeout(this.#check);
      target.off(`change:${trait}`, changed);
    });
  }

  /** The state is there: show what it holds, or write what the person did meanwhile. */
  start(state: State): void {
    this.#state = state;
    const value = this.#touched && !this.readOnly() ? this.#read() : undefined;
    if (value === undefined) this.show();
    else this.#write(state, value);
  }

  /** The state holds another value. */
  arrived(): void {
    this.#shownAgain = false;
    this.show();
  }

  /** The kernel has made something else of a value: so does the page. */
  fits(fit: Fit): void {
    this.#fit = fit;
    this.show();
  }

  /** Show what the state holds. */
  show(): void {
    const held = this.#state?.get(this.key);
    const value = this.#fit && equal(this.#fit.of, held) ? this.#fit.value : held;
    if (value === undefined || equal(value, this.#read())) return;
    const mine = (this.#version += 1);
    const put = (unpacked: unknown) => {
      if (mine !== this.#version || this.signal.aborted) return;
      this.#shownAt = performance.now();
      this.#showing = true;
      try {
        keepCaret(() => this.target.set_state({ [this.trait]: unpacked }));
      } finally {
        this.#showing = false;
      }
    };
    const unpack = serializers(this.target)?.[this.trait]?.deserialize;
    const raw = asViews(value);
    if (!unpack) return put(raw);
    try {
      Promise.resolve(unpack(raw, this.target.widget_manager)).then(put, report);
    } catch (error) {
      report(error);
    }
  }

  #changed(): void {
    if (this.#showing) return;
    const lock = this.target._state_lock;
    if (lock != null && (typeof lock !== "object" || Object.hasOwn(lock, this.trait))) return this.#again(CONFIRM);
    if (!this.#state) {
      this.#touched ||= lastInput() > this.#since;
      return;
    }
    const value = this.#read();
    if (value === undefined || equal(value, this.#state.get(this.key))) return;
    // Not in the midst of what the view is doing: it would go on with what it has.
    if (this.readOnly()) return this.#again(0);
    if (performance.now() - this.#shownAt < SETTLE && lastInput() <= this.#shownAt) {
      if (!this.#shownAgain) this.#again(SETTLE);
      this.#shownAgain = true;
      return;
    }
    this.#write(this.#state, value);
  }

  #write(state: State, value: unknown): void {
    this.#version += 1;
    clearTimeout(this.#check);
    state.set(this.key, value).catch(report);
  }

  #again(wait: number): void {
    clearTimeout(this.#check);
    this.#check = setTimeout(() => this.show(), wait);
  }

  /** The trait's value as it travels; undefined where it can't. */
  #read(): unknown {
    try {
      const value = this.target.get(this.trait);
      // The default way of models to copy a value, by JSON, would lose binary.
      if (value instanceof DataView && !serializers(this.target)?.[this.trait]?.serialize) return asBytes(value);
      return asBytes(this.target.serialize({ [this.trait]: value })[this.trait]);
    } catch {
      return undefined;
    }
  }
}

interface Serializer {
  readonly deserialize?: (value: unknown, manager: unknown) => unknown;
  readonly serialize?: (value: unknown, model: unknown) => unknown;
}

function serializers(target: TargetModel): Partial<Record<string, Serializer>> | undefined {
  return (target.constructor as { serializers?: Partial<Record<string, Serializer>> }).serializers;
}

export function report(error: unknown): void {
  console.warn("[ebus] share:", error instanceof Error ? error.message : error);
}
