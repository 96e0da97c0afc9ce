/** Small tools: listeners that can't break each other, lifetimes by `AbortSignal`, equality of values. */

/** Run someone else's code: what it throws is reported, and stops nobody else. */
export function call(code: () => void): void {
  try {
    code();
  } catch (error) {
    console.error("[ebus] a listener failed:", error);
  }
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  const parts = {} as Deferred<T>;
  const promise = new Promise<T>((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return Object.assign(parts, { promise });
}

/** The page around us. In Node, and in workers, parts of it are missing. */
export const page: Partial<Pick<Window & typeof globalThis, "document" | "location" | "navigator" | "addEventListener" | "removeEventListener">> = globalThis;

/** Functions to be called. Emits over a copy, so that a listener may come or go meanwhile. */
export class Listeners<Args extends unknown[]> {
  readonly #all = new Map<object, (...args: Args) => void>();

  get size(): number {
    return this.#all.size;
  }

  /** Returns how to remove it again; an abort of `signal` does the same. */
  add(listener: (...args: Args) => void, signal?: AbortSignal): () => void {
    const place = {};
    if (signal?.aborted) return () => undefined;
    this.#all.set(place, listener);
    const forget = onAbort(signal, () => this.#all.delete(place));
    return () => {
      forget();
      this.#all.delete(place);
    };
  }

  emit(...args: Args): void {
    for (const listener of [...this.#all.values()]) call(() => listener(...args));
  }
}

/** Call `end` when `signal` aborts (at once if it has); returns how to call that off. */
export function onAbort(signal: AbortSignal | undefined, end: () => void): () => void {
  if (signal?.aborted) end();
  else signal?.addEventListener("abort", end, { once: true });
  return () => signal?.removeEventListener("abort", end);
}

/** Whether two values that can travel on a bus are the same. */
export function equal(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (ArrayBuffer.isView(a) || ArrayBuffer.isView(b)) return sameBytes(a, b);
  if (Array.isArray(a) !== Array.isArray(b) || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (a instanceof Date) return a.getTime() === (b as Date).getTime();
  const keys = Object.keys(a);
  const other = b as Record<string, unknown>;
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equal((a as Record<string, unknown>)[key], other[key]))
  );
}

function sameBytes(a: object, b: object): boolean {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b)) return false;
  if (a.constructor !== b.constructor || a.byteLength !== b.byteLength) return false;
  const [left, right] = [a, b].map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)) as [Uint8Array, Uint8Array];
  const shapes = [a, b].map((view) => String((view as { shape?: readonly number[] }).shape));
  return shapes[0] === shapes[1] && left.every((byte, i) => byte === right[i]);
}
