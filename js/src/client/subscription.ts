/**
 * What a stream, a listener or a state reads a bus through: a `Reader` that decodes.
 *
 * A message whose value cannot be decoded here is skipped, reported, and added to `errors`.
 */
import type { ChannelHandle } from "../core/channel.js";
import type { EbusError } from "../core/errors.js";
import { decodeValue, type Message } from "../core/frames.js";
import type { Reader } from "../core/reader.js";
import type { SessionRunner } from "./runner.js";

/** The number of errors that are kept. */
const ERRORS_KEPT = 100;

export class Subscription {
  /** The last errors of messages that were skipped. */
  readonly errors: EbusError[] = [];

  /**
   * @param wake - Called when there may be something to read.
   * @param end - Called when the bus is closed on this page.
   */
  constructor(
    readonly runner: SessionRunner,
    readonly handle: ChannelHandle,
    readonly reader: Reader,
    readonly all: Set<Subscription>,
    readonly wake: () => void,
    readonly end: () => void,
  ) {
    runner.session.subscribe(handle);
    all.add(this);
    runner.flush();
  }

  /** True if everything was read that was there when the connection was made, and everything since. */
  get caughtUp(): boolean {
    return this.reader.caughtUp;
  }

  /** Ends the subscription. */
  release(): void {
    if (!this.all.delete(this)) return;
    this.runner.session.unsubscribe(this.handle);
    this.runner.flush();
  }

  /**
   * Returns the next message; undefined if there is none yet. Throws as `Reader.readNowait` does.
   *
   * @param freeze - Freeze the objects and arrays in its value.
   */
  read(freeze = false): Message | undefined {
    for (;;) {
      const delivery = this.reader.readNowait();
      if (!delivery) return undefined;
      try {
        return { ...delivery, value: decodeValue(delivery, this.handle.label, freeze) };
      } catch (error) {
        if (this.errors.push(error as EbusError) > ERRORS_KEPT) this.errors.shift();
        this.runner.report(error as EbusError);
      }
    }
  }
}
