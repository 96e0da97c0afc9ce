/**
 * Detects a broker that no longer answers.
 *
 * A connection without incoming data for `SILENCE` needs a ping. A ping without an answer for the patience given to `check`
 * (usually `PATIENCE`) means that the connection is lost. Times are arguments, in milliseconds.
 */
export const SILENCE = 20_000;
export const PATIENCE = 10_000;
/** A longer gap between two checks means that the machine slept or the page was frozen. */
const FROZEN = 8_000;

export class Heartbeat {
  #lastData = 0;
  #lastCheck = 0;
  /** When the outstanding answer was requested; null if none is outstanding. */
  #waitingSince: number | null = null;
  /** The number of freezes since then. */
  #freezes = 0;

  /** Starts with a new connection. Its first message is due. */
  start(now: number): void {
    this.dataReceived(now);
    this.#lastCheck = this.#waitingSince = now;
  }

  /** Stops with the connection. No answer is due. */
  stop(): void {
    this.#waitingSince = null;
  }

  dataReceived(now: number): void {
    this.#lastData = now;
    this.#waitingSince = null;
    this.#freezes = 0;
  }

  pingSent(now: number): void {
    this.#waitingSince = now;
  }

  /** Returns the state of the connection: "alive", "silent" (send a ping) or "lost". */
  check(now: number, patience: number): "alive" | "silent" | "lost" {
    const frozen = now - this.#lastCheck > FROZEN;
    this.#lastCheck = now;
    // After a freeze, an answer may have arrived without having been read yet: ping again before giving up. A page whose
    // timers are throttled freezes between all checks; then the second freeze in a row without an answer counts.
    if (this.#waitingSince !== null) {
      if (frozen) this.#freezes += 1;
      if (!frozen || this.#freezes > 1) return now - this.#waitingSince < patience ? "alive" : "lost";
    }
    return frozen || now - this.#lastData >= SILENCE ? "silent" : "alive";
  }
}
