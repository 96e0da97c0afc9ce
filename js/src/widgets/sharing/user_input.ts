/** The user's input on this page: the time of the last input event, and the caret. */
import { page } from "../../transports/page.js";

let last = -Infinity;
let tracking = false;

/** Returns the time of the user's last input (`performance.now`). */
export function lastInput(): number {
  return last;
}

/** Records every input event from now on, before any widget handles it. */
export function trackInput(): void {
  if (tracking || !page.addEventListener) return;
  tracking = true;
  const record = () => (last = performance.now());
  for (const event of ["pointerdown", "pointermove", "pointerup", "keydown", "wheel", "input", "change", "drop", "paste"]) {
    page.addEventListener(event, record, { capture: true, passive: true });
  }
}

/** Runs `change`, which may replace the text of the focused field, and keeps the caret at its place in the text. */
export function keepCaret(change: () => void): void {
  const field = page.document?.activeElement as HTMLInputElement | null | undefined;
  const start = field?.selectionStart;
  if (!field || start == null) return change();
  const [before, end] = [field.value, field.selectionEnd ?? start];
  change();
  const after = field.value;
  if (after !== before) field.setSelectionRange(movedCaret(start, before, after), movedCaret(end, before, after));
}

/** Returns the index in `after` that corresponds to `index` in `before`. */
export function movedCaret(index: number, before: string, after: string): number {
  let start = 0;
  while (start < Math.min(before.length, after.length) && before[start] === after[start]) start += 1;
  if (index <= start) return index;
  let end = 0;
  const room = Math.min(before.length, after.length) - start;
  while (end < room && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  return index >= before.length - end ? index + after.length - before.length : Math.min(index, after.length - end);
}
