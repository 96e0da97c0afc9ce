/**
 * The errors of the client: one tree, the same as `ebus_jupyter.errors`.
 *
 *     EbusError
 *      ├── Rejected                 the write was refused; nothing was logged
 *      │    ├── TypeMismatch        the value does not have the bus's type        type_mismatch
 *      │    ├── Filtered            the bus's filter refused the value            filtered
 *      │    ├── Forbidden           this participant may not do that              forbidden
 *      │    ├── TooLarge            a value, name or bus exceeds its limit        too_large
 *      │    ├── RateLimited         too many requests; try again later            rate_limited
 *      │    └── Conflict            the expected offset is no longer the last     conflict
 *      ├── FilterUnavailable        the kernel that filters the bus is away       filter_unavailable
 *      ├── Lagged                   the reader was too slow and missed messages   lagged
 *      ├── Closed                   the bus, stream or client is closed           closed
 *      ├── ConnectionLost           the broker cannot be reached                  connection_lost
 *      ├── SpecConflict             the bus exists with another specification     spec_conflict
 *      ├── NoSuchBus                no such bus within this participant's reach   no_such_bus
 *      ├── InvalidName              not a valid bus name                          invalid_name
 *      ├── UnknownScope             the scope does not exist here                 unknown_scope
 *      ├── Unauthenticated          no token, or an invalid one                   unauthenticated
 *      ├── ProtocolError            a frame that this version cannot read         protocol
 *      └── BackendError             the log could not be written or read          backend
 *
 * The word on the right is `code`, which is stable and the same on the wire. `temporary` states whether the same call may
 * succeed later without a change. `details` holds facts for programs, such as `path`, `limit` or `retry_after`.
 */

export type Details = Readonly<Record<string, unknown>>;

const MARK = Symbol.for("ebus.error");

/**
 * The root of the tree.
 *
 * `instanceof` compares codes, not classes: a page may load this module twice (under two URLs), and each copy must recognise
 * the errors of the other.
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

/** The write was refused: no participant received it and nothing was logged. */
export class Rejected extends EbusError {
  static override readonly code: string = "rejected";
}

/** The value does not have the bus's type. `details.path` is a JSON path such as `$.weight`. */
export class TypeMismatch extends Rejected {
  static override readonly code = "type_mismatch";
}

/** The bus's filter refused the value. `details.reason` is the filter's reason. */
export class Filtered extends Rejected {
  static override readonly code = "filtered";
}

/** This participant may not do that. */
export class Forbidden extends Rejected {
  static override readonly code = "forbidden";
}

/** A value, a name, a bus or a list exceeds its limit. `details.limit` names the limit. */
export class TooLarge extends Rejected {
  static override readonly code = "too_large";
}

/** Too many requests. `details.retry_after` is in seconds. */
export class RateLimited extends Rejected {
  static override readonly code = "rate_limited";
  static override readonly temporary = true;
}

/** A compare-and-set expected another offset. `details.actual` is the present offset. */
export class Conflict extends Rejected {
  static override readonly code = "conflict";
}

/** The kernel that filters the bus is away; an unfiltered write is not accepted. */
export class FilterUnavailable extends EbusError {
  static override readonly code = "filter_unavailable";
  static override readonly temporary = true;
}

/** The reader was too slow, or disconnected for too long, and missed messages. The stream continues after this error. */
export class Lagged extends EbusError {
  static override readonly code = "lagged";
  static override readonly temporary = true;
  /** The number of missed messages; null if it is unknown (the bus has a new history). */
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

/** The bus, the stream or the client is closed. `details.reason` is the reason. */
export class Closed extends EbusError {
  static override readonly code = "closed";
}

/** The broker cannot be reached. The client keeps trying, and sends writes without an answer again. */
export class ConnectionLost extends EbusError {
  static override readonly code = "connection_lost";
  static override readonly temporary = true;
}

/** The bus exists with another specification. `details.given` and `details.existing` hold the fields that differ. */
export class SpecConflict extends EbusError {
  static override readonly code = "spec_conflict";
}

/** No such bus within this participant's reach: it does not exist, or it is not visible to this participant. */
export class NoSuchBus extends EbusError {
  static override readonly code = "no_such_bus";
}

/** Not a valid bus name. */
export class InvalidName extends EbusError {
  static override readonly code = "invalid_name";
}

/** The scope does not exist here. */
export class UnknownScope extends EbusError {
  static override readonly code = "unknown_scope";
}

/** No token, or one that this server has not issued. */
export class Unauthenticated extends EbusError {
  static override readonly code = "unauthenticated";
}

/** A frame that this version cannot read. */
export class ProtocolError extends EbusError {
  static override readonly code = "protocol";
}

/** The bus's log could not be written or read; the write was not accepted. */
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

/** Returns the error for a code from the wire. A code of a newer version becomes a plain `EbusError`. */
export function fromWire(code: string, text: string, details: Details = {}): EbusError {
  if (code === Lagged.code) {
    const { skipped, resume_after } = details as { skipped?: number | null; resume_after?: number };
    return new Lagged({ skipped: skipped ?? null, resumeAfter: resume_after ?? 0 });
  }
  return new (byCode(code) as typeof EbusError)(text, details);
}

// Codes survive minification, class names do not.
function className(code: string): string {
  const name = code.replace(/(^|_)(\w)/g, (_, __, letter: string) => letter.toUpperCase());
  return { Error: "EbusError", Protocol: "ProtocolError", Backend: "BackendError" }[name] ?? name;
}
