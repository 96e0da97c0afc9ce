/**
 * Every error that the client raises, in one tree, the same as Python's `ebus_jupyter.errors`.
 *
 *     EbusError
 *      ├── Rejected                 the write was refused; nothing was logged
 *      │    ├── TypeMismatch        the value is not of the bus's type            type_mismatch
 *      │    ├── Filtered            the bus's filter refused it                   filtered
 *      │    ├── Forbidden           this participant may not do that              forbidden
 *      │    ├── TooLarge            a value, name or bus is over its bound        too_large
 *      │    ├── RateLimited         too many, too fast; try again later           rate_limited
 *      │    └── Conflict            the expected offset is no longer the last     conflict
 *      ├── FilterUnavailable        the kernel that filters this bus is away      filter_unavailable
 *      ├── Lagged                   the reader was too slow and missed messages   lagged
 *      ├── Closed                   the bus, stream or client is closed           closed
 *      ├── ConnectionLost           the broker can't be reached                   connection_lost
 *      ├── SpecConflict             the bus exists with another specification     spec_conflict
 *      ├── NoSuchBus                no such bus within this participant's reach   no_such_bus
 *      ├── InvalidName              a bus name that no bus can have               invalid_name
 *      ├── UnknownScope             a scope that does not exist here              unknown_scope
 *      ├── Unauthenticated          no token, or one that nobody issued           unauthenticated
 *      ├── ProtocolError            a frame that this version can't understand    protocol
 *      └── BackendError             the log could not be written or read          backend
 *
 * The word on the right is `code`: stable, and the same on the wire. `temporary` says whether the same call may succeed
 * later without a change. `details` holds facts for programs, such as `path`, `limit` or `retry_after`.
 */

export type Details = Readonly<Record<string, unknown>>;

const MARK = Symbol.for("ebus.error");

/**
 * The root of the tree. `instanceof` goes by `code`: a page may hold this module twice (imported under two URLs), and an
 * error of the one is an error of the other.
 */
export class EbusError extends Error {
  static readonly code: string = "error";
  static readonly temporary: boolean = false;

  readonly code: string;
  readonly temporary: boolean;
  readonly details: Details;
  /** @internal */
  readonly [MARK] = true;

  static override [Symbol.hasInstance](value: unknown): boolean {
    if (typeof value !== "object" || value === null || !(MARK in value)) return false;
    const kind = byCode((value as EbusError).code);
    return kind === this || Object.prototype.isPrototypeOf.call(this, kind);
  }

  constructor(text = "", details: Details = {}) {
    super(text);
    this.code = new.target.code;
    this.temporary = new.target.temporary;
    this.details = details;
    this.name = className(this.code);
  }
}

/** The write was refused once and for all: no participant saw it and nothing was logged. */
export class Rejected extends EbusError {
  static override readonly code: string = "rejected";
}

/** The value is not of the bus's type. `details.path` is a JSON path such as `$.weight`. */
export class TypeMismatch extends Rejected {
  static override readonly code = "type_mismatch";
}

/** The bus's filter refused the value. `details.reason` is what the filter said. */
export class Filtered extends Rejected {
  static override readonly code = "filtered";
}

/** This participant is not allowed to do that. */
export class Forbidden extends Rejected {
  static override readonly code = "forbidden";
}

/** A value, a name, a bus or a list is over its bound. `details.limit` names the bound. */
export class TooLarge extends Rejected {
  static override readonly code = "too_large";
}

/** Too many, too fast. `details.retry_after` is in seconds. */
export class RateLimited extends Rejected {
  static override readonly code = "rate_limited";
  static override readonly temporary = true;
}

/** A compare-and-set found another offset. `details.actual` is the offset that is there. */
export class Conflict extends Rejected {
  static override readonly code = "conflict";
}

/** The kernel that filters this bus is away; the write was not accepted unfiltered. */
export class FilterUnavailable extends EbusError {
  static override readonly code = "filter_unavailable";
  static override readonly temporary = true;
}

/** The reader was too slow, or away too long, and missed messages. The stream goes on after this. */
export class Lagged extends EbusError {
  static override readonly code = "lagged";
  static override readonly temporary = true;
  /** How many messages were missed; null where nobody can know (the bus was begun anew). */
  readonly skipped: number | null;
  /** The stream continues with the first message after this offset. */
  readonly resumeAfter: number;

  constructor(missed: { skipped: number | null; resumeAfter: number }) {
    const { skipped, resumeAfter } = missed;
    const what = skipped === null ? "an unknown number of messages" : `${skipped} message${skipped === 1 ? "" : "s"}`;
    const text = `missed ${what}; the stream goes on after offset ${resumeAfter}. Read faster, or give the bus a larger size.`;
    super(text, missed);
    this.skipped = skipped;
    this.resumeAfter = resumeAfter;
  }
}

/** The bus, the stream or the client is closed. `details.reason` says by whom or why. */
export class Closed extends EbusError {
  static override readonly code = "closed";
}

/** The broker can't be reached. The client goes on trying; unacknowledged writes are sent again. */
export class ConnectionLost extends EbusError {
  static override readonly code = "connection_lost";
  static override readonly temporary = true;
}

/** The bus exists with another specification. `details.given` and `details.existing` hold the fields that differ. */
export class SpecConflict extends EbusError {
  static override readonly code = "spec_conflict";
}

/** No such bus within this participant's reach (it may not exist, or not be visible from here). */
export class NoSuchBus extends EbusError {
  static override readonly code = "no_such_bus";
}

/** A name that no bus can have. */
export class InvalidName extends EbusError {
  static override readonly code = "invalid_name";
}

/** A scope that does not exist, or not here. */
export class UnknownScope extends EbusError {
  static override readonly code = "unknown_scope";
}

/** No token, or one that this server did not issue. */
export class Unauthenticated extends EbusError {
  static override readonly code = "unauthenticated";
}

/** A frame that the other side can't understand. */
export class ProtocolError extends EbusError {
  static override readonly code = "protocol";
}

/** The log behind the bus could not be written or read; the write was not accepted. */
export class BackendError extends EbusError {
  static override readonly code = "backend";
  static override readonly temporary = true;
}

const TREE: readonly (typeof EbusError | typeof Lagged)[] = [
  Lagged,
  Rejected,
  TypeMismatch,
  Filtered,
  Forbidden,
  TooLarge,
  RateLimited,
  Conflict,
  FilterUnavailable,
  Closed,
  ConnectionLost,
  SpecConflict,
  NoSuchBus,
  InvalidName,
  UnknownScope,
  Unauthenticated,
  ProtocolError,
  BackendError,
];

function byCode(code: string): typeof EbusError | typeof Lagged {
  return TREE.find((kind) => kind.code === code) ?? EbusError;
}

/** Rebuild an error that travelled. A code from a newer version becomes a plain `EbusError`. */
export function fromWire(code: string, text: string, details: Details = {}): EbusError {
  if (code === Lagged.code) {
    const { skipped, resume_after } = details as { skipped?: number | null; resume_after?: number };
    return new Lagged({ skipped: skipped ?? null, resumeAfter: resume_after ?? 0 });
  }
  return new (byCode(code) as typeof EbusError)(text, details);
}

// Class names don't survive minification, and codes do.
function className(code: string): string {
  const name = code.replace(/(^|_)(\w)/g, (_, __, letter: string) => letter.toUpperCase());
  return { Error: "EbusError", Protocol: "ProtocolError", Backend: "BackendError" }[name] ?? name;
}
