/** The part of a connection that its buses use. */
import type { SessionEvent } from "../core/events.js";
import type { Session } from "../core/session.js";

export interface SessionRunner {
  readonly session: Session;
  /** Sends the session's data soon, together with all that is written in the same turn of the event loop. */
  flush(): void;
  /** Passes the session's events on to the listeners and promises that wait for them, and flushes. */
  dispatch(events: readonly SessionEvent[]): void;
}
