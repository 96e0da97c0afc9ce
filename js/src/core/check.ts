/**
 * What the program gives is checked and encoded in the call that gives it. A frame with a wrong field would end the connection
 * of the whole page.
 */

/** @throws TypeError with `text` if `valid` is false. */
export function check(valid: boolean, text: string): void {
  if (!valid) throw new TypeError(text);
}
