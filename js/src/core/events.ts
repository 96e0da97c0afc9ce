/** The events that a session reports to its owner. */
import type { Channel, ChannelHandle, Request, Write } from "./channel.js";
import type { EbusError } from "./errors.js";
import type { Participant } from "./frames.js";

export type SessionEvent =
  /** The broker has accepted this client. */
  | { type: "welcomed"; you: Participant }
  | { type: "bus_opened"; handle: ChannelHandle }
  /** The bus cannot be opened, or it has ended. Final. */
  | { type: "bus_closed"; handle: ChannelHandle; error: EbusError }
  /** The channel's log has new messages or gaps, or has begun anew. */
  | { type: "messages_arrived"; channel: Channel }
  | { type: "presence_changed"; channel: Channel }
  /** The broker has accepted the write at `offset`, or refused it. */
  | { type: "write_settled"; write: Write; error: EbusError | null; offset: number | undefined }
  /** The broker has answered the request, or refused it. */
  | { type: "request_settled"; request: Request; error: EbusError | null; value?: unknown }
  /** An error that belongs to no request. */
  | { type: "error_reported"; error: EbusError }
  /** The connection ends; `reconnect` states whether a new one may succeed. */
  | { type: "connection_ended"; error: EbusError; reconnect: boolean };
