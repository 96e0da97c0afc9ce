/** The part of a connection that its buses use. */
import type { EbusError } from "../core/errors.js";
import type { SessionEvent } from "../core/events.js";
import type { Session } from "../core/session.js";

export interface SessionRunner {
  readonly session: Session;
  /** Returns the present time in milliseconds, by a clock that only goes forward. */
  now(): number;
  /** Sends the session's data soon, together with all that is written in the same turn of the event loop. */
  readonly flush: () => void;
  /** Passes the session's events on to the listeners and promises that wait for them, and flushes. */
  dispatch(events: readonly SessionEvent[]): void;
  /** Reports an error that no call is there to throw. */
  report(error: EbusError): void;
}
