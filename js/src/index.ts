/** The public names of `ebus-jupyter`. */
export { connect, Client, type ConnectOptions } from "./client.js";
export { Bus, type BusOptions, type ListenOptions, type StreamOptions } from "./bus.js";
export { Stream } from "./stream.js";
export type { Since } from "./reader.js";
export { State } from "./state.js";
export type { Change } from "./replica.js";
export type { Presence } from "./presence.js";
export type { Status } from "./connection.js";
export type { Connect, Listener, Transport } from "./transport.js";
export type { Message, Participant, Seat, Spec, WriteOptions } from "./frames.js";
export { ndarray, RawArray, type NDArray } from "./ndarray.js";
export * from "./errors.js";
