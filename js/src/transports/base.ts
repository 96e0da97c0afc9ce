/**
 * The interface of transports, which carry frames between a client and a broker.
 *
 * A transport carries whole messages, in order, each once, until it ends. It does not reconnect, retry or buffer: the
 * connection does.
 */
import type { EbusError } from "../core/errors.js";

/** Receives the events of one transport: `opened` at most once, then `message` for each message, then `closed` once. */
export interface Listener {
  opened(): void;
  message(bytes: Uint8Array): void;
  /** The transport has ended; a permanent `error` means that another attempt will fail as well. */
  closed(error: EbusError | null): void;
}

export interface Transport {
  /** Sends one message. Has no effect after the transport has ended. */
  send(bytes: Uint8Array): void;
  /** Ends the transport. The listener receives no further events. Idempotent. */
  close(): void;
}

/**
 * Opens a transport; each call opens another one.
 *
 * @throws EbusError if no attempt can succeed.
 */
export type Connect = (listener: Listener) => Transport;

/** Another way to connect: returns it, or `first` (the page's own way to its server, if it has one) where that is better. */
export type Way = (first: Connect | null) => Connect;
