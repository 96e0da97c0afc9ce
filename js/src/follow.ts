/**
 * How a channel follows its bus: where to resume, what arrives, and what to do about holes. Functions over a `Channel`,
 * which tell whether its readers have something to look at. The link decides when to subscribe, and carries the frames.
 */
import type { Channel } from "./channel.js";
import type { BrokerFrame, Message } from "./frames.js";

type Subscribed = BrokerFrame & { type: "subscribed" };

/** Where the messages are to begin: after the last one seen; with nothing said, from now on. */
export function resumption(channel: Channel): [epoch: string, after: number, lastId: string] {
  const { asked, epoch, last, lastId, target } = channel;
  if (channel.resumable) return [epoch, last, lastId];
  // The answer to the first question was lost with its connection; what came since is wanted.
  if (asked) return [asked.epoch, asked.after, ""];
  channel.asked = { epoch, after: target };
  return ["", 0, ""];
}

/** Nobody reads any more: what comes later is another matter. */
export function unfollow(channel: Channel): void {
  channel.reading = "no";
  channel.resumable = false;
  channel.asked = null;
}

/** The answer to a question to subscribe: from here on messages come. */
export function begun(channel: Channel, frame: Subscribed): void {
  channel.reading = "live";
  channel.target = frame.last;
  const anew = frame.fresh || frame.epoch !== channel.epoch;
  if (!channel.resumable) {
    const after = frame.recovered || anew ? frame.after : (channel.asked?.after ?? frame.after);
    channel.log.restart(after);
    channel.began = channel.last = after;
    channel.lastId = "";
    channel.resumable = true;
    if (after < frame.after) missed(channel, frame.after, frame.skipped, false);
  } else if (!frame.recovered) {
    missed(channel, frame.after, frame.skipped, anew);
  }
  channel.epoch = frame.epoch;
}

/** The broker begins a snapshot by itself, for a reader that was too far behind for anything else. */
export function begunAnew(channel: Channel, frame: Subscribed): boolean {
  if (channel.reading !== "live" || frame.recovered) return false;
  channel.target = frame.last;
  missed(channel, frame.after, frame.skipped, frame.fresh);
  return true;
}

/** A message, of about `size` bytes. */
export function delivered(channel: Channel, message: Message, size: number): boolean {
  if (channel.reading !== "live" || message.offset <= channel.last) return false;
  channel.last = message.offset;
  channel.lastId = message.id;
  channel.log.append(message, size);
  return true;
}

/** The order went on with a message that is not for us. */
export function advanced(channel: Channel, offset: number): boolean {
  if (channel.reading !== "live" || offset <= channel.last) return false;
  channel.last = offset;
  channel.lastId = "";
  return true;
}

/** We were too slow. */
export function lagged(channel: Channel, { resumeAfter, skipped }: BrokerFrame & { type: "lag" }): boolean {
  if (channel.reading !== "live") return false;
  missed(channel, resumeAfter, skipped, false);
  return true;
}

/** What follows begins after `offset`: a hole in what we have, or (`fresh`) all that the broker has. */
function missed(channel: Channel, offset: number, skipped: number, fresh: boolean): void {
  const lost = skipped < 0 ? null : skipped;
  if (fresh || offset <= channel.last) {
    channel.log.restart(offset);
    channel.history += 1;
    channel.lost = lost;
  } else {
    channel.log.append({ gap: true, offset, skipped: lost });
  }
  channel.last = offset;
  channel.lastId = "";
}
