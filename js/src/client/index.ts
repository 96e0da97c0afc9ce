/** The public names of the package `ebus-jupyter`. */
export { connect, Client, type ConnectOptions } from "./client.js";
export { Bus, type BusOptions, type ListenOptions, type StreamOptions } from "./bus.js";
export { Stream } from "./stream.js";
export type { WaitOptions } from "./waiting.js";
export type { Presence } from "./presence.js";
export type { Status } from "./connection.js";
export type { Since } from "../core/reader.js";
export type { Position } from "../core/position.js";
export type { Message, Participant, Seat, Spec, WriteOptions } from "../core/frames.js";
export type { Connect, Listener, Transport } from "../transports/base.js";
export { ndarray, RawArray, type NDArray } from "../core/ndarray.js";
export * from "../core/errors.js";
