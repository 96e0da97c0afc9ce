/**
 * One trait of one model, bound to a key of a shared state.
 *
 * - A value from the state is applied with `set_state`, which does not send it to the kernel: the kernel receives it from the
 *   bus.
 * - A change of a trait that the model's `_state_lock` names comes from the kernel, or from this module, and is not written.
 *   The kernel writes its changes on the bus too, so what it sends to the model alone is either early or a late echo. If the
 *   bus does not confirm it soon, the bus's value is shown again.
 * - A widget may convert a value that it was shown: round it, clip it, or settle into it after an animation. A change that
 *   follows a shown value, without user input since, is such an echo and is not written. Otherwise two pages that round
 *   differently would never come to rest.
 * - Any other change is the user's, or made by a program on the page, and is written.
 * - A change that the user makes before the state has arrived is written when it arrives.
 */
import type { State } from "../../client/state.js";
import { onAbort } from "../../core/abort.js";
import { equal } from "../../core/equal.js";
import type { TargetModel } from "../model.js";
import { asBytes, asViews } from "./binary.js";
import { keepCaret, lastInput } from "./user_input.js";

/** How long the bus may take to confirm a value that the kernel sent to the model, in milliseconds. */
const CONFIRM = 300;

/** How long a widget may take to settle into a shown value, in milliseconds. */
const SETTLE = 1000;

/** The kernel's widget cannot have the value `of`, and uses `value` instead. */
export interface Fit {
  readonly of: unknown;
  readonly value: unknown;
}

export class BoundTrait {
  #state: State | null = null;
  /** Counts the shown and written values: a value that takes time to deserialize is outdated when a newer one exists. */
  #version = 0;
  #showing = false;
  #shownAt = -Infinity;
  /** The shown value was shown once more, because the widget had changed it. */
  #shownAgain = false;
  /** The user has changed the trait before the state arrived. */
  #touched = false;
  #check: ReturnType<typeof setTimeout> | undefined;
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

  /** The state has arrived: shows its value, or writes what the user has changed meanwhile. */
  start(state: State): void {
    this.#state = state;
    const value = this.#touched && !this.readOnly() ? this.#read() : undefined;
    if (value === undefined) this.show();
    else this.#write(state, value);
  }

  /** The state has a new value. */
  arrived(): void {
    this.#shownAgain = false;
    this.show();
  }

  /** The kernel's widget has converted a value: shows the converted one. */
  fits(fit: Fit): void {
    this.#fit = fit;
    this.show();
  }

  /** Shows the state's value. */
  show(): void {
    const shared = this.#state?.get(this.key);
    const value = this.#fit && equal(this.#fit.of, shared) ? this.#fit.value : shared;
    if (value === undefined || equal(value, this.#read())) return;
    const version = (this.#version += 1);
    const put = (deserialized: unknown) => {
      if (version !== this.#version || this.signal.aborted) return;
      this.#shownAt = performance.now();
      this.#showing = true;
      try {
        keepCaret(() => this.target.set_state({ [this.trait]: deserialized }));
      } finally {
        this.#showing = false;
      }
    };
    const deserialize = serializers(this.target)?.[this.trait]?.deserialize;
    const raw = asViews(value);
    if (!deserialize) return put(raw);
    try {
      Promise.resolve(deserialize(raw, this.target.widget_manager)).then(put, report);
    } catch (error) {
      report(error);
    }
  }

  #changed(): void {
    if (this.#showing) return;
    const lock = this.target._state_lock;
    if (lock != null && (typeof lock !== "object" || Object.hasOwn(lock, this.trait))) return this.#showAfter(CONFIRM);
    if (!this.#state) {
      this.#touched ||= lastInput() > this.#since;
      return;
    }
    const value = this.#read();
    if (value === undefined || equal(value, this.#state.get(this.key))) return;
    // Not synchronously: the view is handling the change, and would continue with the value that it has.
    if (this.readOnly()) return this.#showAfter(0);
    if (performance.now() - this.#shownAt < SETTLE && lastInput() <= this.#shownAt) {
      if (!this.#shownAgain) this.#showAfter(SETTLE);
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

  #showAfter(delay: number): void {
    clearTimeout(this.#check);
    this.#check = setTimeout(() => this.show(), delay);
  }

  /** Returns the trait's serialized value; undefined if it cannot be serialized. */
  #read(): unknown {
    try {
      const value = this.target.get(this.trait);
      // By default models copy values by JSON, which would lose binary data.
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
