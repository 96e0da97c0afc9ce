/** What the person at this page does: when they last did anything, and where their caret is. */
import { page } from "./util.js";

let last = -Infinity;
let watching = false;

/** When the person last touched this page (`performance.now`). */
export function lastInput(): number {
  return last;
}

/** Take note, from now on, of every touch: before any widget hears of it. */
export function watchPerson(): void {
  if (watching || !page.addEventListener) return;
  watching = true;
  const touched = () => (last = performance.now());
  for (const event of ["pointerdown", "pointermove", "pointerup", "keydown", "wheel", "input", "change", "drop", "paste"]) {
    page.addEventListener(event, touched, { capture: true, passive: true });
  }
}

/** Let `change` put another text under the caret of the field that the person writes in: the caret stays where it was. */
export function keepCaret(change: () => void): void {
  const field = page.document?.activeElement as HTMLInputElement | null | undefined;
  const from = field?.selectionStart;
  if (!field || from == null) return change();
  const [before, to] = [field.value, field.selectionEnd ?? from];
  change();
  const after = field.value;
  if (after !== before) field.setSelectionRange(moved(from, before, after), moved(to, before, after));
}

/** Where what was at `place` in `before` is in `after`. */
export function moved(place: number, before: string, after: string): number {
  let start = 0;
  while (start < Math.min(before.length, after.length) && before[start] === after[start]) start += 1;
  if (place <= start) return place;
  let end = 0;
  const room = Math.min(before.length, after.length) - start;
  while (end < room && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  return place >= before.length - end ? place + after.length - before.length : Math.min(place, after.length - end);
}
