/**
 * Whether the broker is still there. After `SILENCE` without a word from it, it is to be asked; after `PATIENCE` without an
 * answer it counts as lost. Times are arguments, in milliseconds.
 */
export const SILENCE = 20_000;
export const PATIENCE = 10_000;
/** A clock that jumps further than this between two looks: the machine slept, or the page was frozen. */
const FROZEN = 8_000;

export class Pulse {
  #heard = 0;
  #looked = 0;
  /** Since when an answer is due; null where none is. */
  #waiting: number | null = null;

  /** A connection begins: the first word is due. */
  begin(now: number): void {
    this.#heard = this.#looked = this.#waiting = now;
  }

  /** The connection has ended: nothing is due. */
  end(): void {
    this.#waiting = null;
  }

  heard(now: number): void {
    this.#heard = now;
    this.#waiting = null;
  }

  asked(now: number): void {
    this.#waiting = now;
  }

  /** How it looks: well, too quiet (ask it), or lost. */
  look(now: number, patience: number): "well" | "quiet" | "lost" {
    const frozen = now - this.#looked > FROZEN;
    this.#looked = now;
    // After a freeze, an answer that came meanwhile may not have been read yet: ask again before giving up.
    if (this.#waiting !== null && !frozen) return now - this.#waiting < patience ? "well" : "lost";
    return frozen || now - this.#heard >= SILENCE ? "quiet" : "well";
  }
}
