/**
 * Outgoing frames: those that are ready, and writes that are held.
 *
 * A write is held while the broker's rate allows no more (`pace`), or while `MAX_IN_FLIGHT` writes have no answer: a bus
 * remembers the ids of so many, to recognise one that is sent again.
 *
 * Going back
 *     Where the broker refuses a write for its rate all the same, it refuses the later ones of this connection as well, until
 *     a `ping` tells that this client knows. So the client sends a `ping` at the first refusal; its `pong` comes behind all of
 *     them. Then the refused writes are sent again, in order and before all others: writes arrive whole, and in the order in
 *     which they were made.
 */
import type { Write } from "./channel.js";
import * as frames from "./frames.js";
import { Pace } from "./pace.js";

/** The writes of one client that are sent and have no answer, at most. */
export const MAX_IN_FLIGHT = 10_000;

export class Outbox {
  readonly pace = new Pace();
  /** Writes, and what must not overtake the writes before it. */
  #held: (Write | (() => void))[] = [];
  #ready: Uint8Array[] = [];
  readonly #inFlight = new Set<Write>();
  #refused: Write[] = [];
  #pings = 0;
  #waitsForPong = false;

  send(frame: Uint8Array): void {
    this.#ready.push(frame);
  }

  /** Sends a write, now or once the broker's rate allows it. */
  write(write: Write, now: number): void {
    if (this.#isHeld || !this.#sendWrite(write, now)) this.#held.push(write);
  }

  /** Calls `send` when the writes before it are sent. */
  behind(send: () => void): void {
    if (this.#isHeld) this.#held.push(send);
    else send();
  }

  /** The write has its answer. */
  settled(write: Write): void {
    this.#inFlight.delete(write);
  }

  /** Sends the held writes that may be sent now. */
  tick(now: number): void {
    let sent = 0;
    if (!this.#waitsForPong) {
      for (const held of this.#held) {
        if (typeof held === "function") held();
        else if (!this.#sendWrite(held, now)) break;
        sent += 1;
      }
    }
    if (sent > 0) this.#held.splice(0, sent);
  }

  /** Returns the time until `tick` has something to do; null if only an answer can give it something. */
  wait(now: number): number | null {
    if (this.#held.length === 0 || this.#waitsForPong || this.#inFlight.size >= MAX_IN_FLIGHT) return null;
    return this.pace.wait(now);
  }

  /** The broker has refused a write for its rate; undefined if it is not here any more. */
  refused(write: Write | undefined, retryAfter: number, now: number): void {
    if (write) {
      this.#inFlight.delete(write);
      this.#refused.push(write);
    }
    if (this.#waitsForPong) return;
    this.#waitsForPong = true;
    this.send(frames.ping((this.#pings += 1)));
    this.pace.stopUntil(now + retryAfter * 1000);
  }

  /** The broker has answered a ping: it has answered every write before it, too. */
  ponged(n: number): void {
    if (!this.#waitsForPong || n !== this.#pings) return;
    this.#waitsForPong = false;
    this.#held.unshift(...this.#refused.sort((a, b) => a.id - b.id));
    this.#refused = [];
  }

  /** Returns the WebSocket messages to send. None has more than `maxBytes` bytes, unless a single frame has. */
  take(maxBytes: number): Uint8Array[] {
    return frames.joinAll(this.#ready.splice(0), maxBytes);
  }

  /** Drops everything: its connection is gone. */
  clear(): void {
    this.#ready = [];
    this.#held = [];
    this.#refused = [];
    this.#inFlight.clear();
    this.#waitsForPong = false;
  }

  get #isHeld(): boolean {
    return this.#held.length > 0 || this.#waitsForPong;
  }

  /** Returns false if the write may not be sent yet. */
  #sendWrite(write: Write, now: number): boolean {
    const { channel } = write.handle;
    // A bus that has ended has settled its writes; one that is not open yet sends them when it is.
    if (channel?.number == null || !channel.unacked.has(write.id)) return true;
    if (this.#inFlight.size >= MAX_IN_FLIGHT || !this.pace.take(now)) return false;
    this.#inFlight.add(write);
    this.send(frames.publish(channel.number, write.id, write.value, write.tail));
    return true;
  }
}
