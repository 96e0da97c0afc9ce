/**
 * The pace of writing: a client sends no faster than its broker lets it, so that nothing is refused and nothing is lost.
 *
 * The broker's welcome says how many writes a second it takes from this client (`publish_rate`), and how many may come at
 * once (`publish_burst`). `Pace` counts along. The two clocks and the line between them are not exact: where the broker
 * refuses a write all the same, `Outbox` goes back to it.
 */

/** Writes that have to wait are sent together in steps of this length at least, in milliseconds. */
const STEP = 20;
/** Of a write: times are floats, and a deadline that is met is met. */
const ENOUGH = 1 - 1e-3;

export class Pace {
  /** Writes a millisecond; 0 where the broker sets no rate. */
  rate = 0;
  #burst = 0;
  #allowed = 0;
  #at = 0;

  /** A connection begins, on which `burst` writes may be sent at once. `rate` is in writes a second. */
  begin(rate: number, burst: number, now: number): void {
    this.rate = rate / 1000;
    // A part is kept back for writes that the line delays and then delivers together.
    this.#allowed = this.#burst = Math.max(1, burst - Math.floor(burst / 10));
    this.#at = now;
  }

  /** The broker takes no write before `at`, and one then. */
  stopUntil(at: number): void {
    this.#allowed = 1;
    this.#at = Math.max(at, this.#at);
  }

  /** Returns whether a write may be sent now; if so, it counts as sent. */
  take(now: number): boolean {
    if (!this.rate) return true;
    this.#refill(now);
    if (now < this.#at || this.#allowed < ENOUGH) return false;
    this.#allowed -= 1;
    return true;
  }

  /** Returns the time until writes that wait may be sent. */
  wait(now: number): number {
    return Math.max(STEP, this.#at - now, (1 - this.#allowed) / this.rate);
  }

  #refill(now: number): void {
    if (now <= this.#at) return;
    this.#allowed = Math.min(this.#burst, this.#allowed + (now - this.#at) * this.rate);
    this.#at = now;
  }
}
