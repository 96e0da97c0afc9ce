/**
 * Bus addresses: a scope, the scope's owner and a name, written as a URI (`ebus:user/alice/votes`).
 *
 * The fragment carries a capability (`ebus:kernel/4f…/votes#CAPABILITY`). Kernel buses and unnamed buses open only with it.
 */
import { InvalidName } from "./errors.js";

export interface Address {
  readonly scope: string;
  readonly owner: string;
  readonly name: string;
  readonly cap: string;
}

/**
 * Parses the URI of a bus.
 *
 * @throws InvalidName if `uri` is not the URI of a bus.
 */
export function parseAddress(uri: string): Address {
  const [, scope = "", owner, name, cap = ""] = /^ebus:([^/#]+)(?:\/([^/#]+))?\/([^/#]+)(?:#(.*))?$/.exec(uri) ?? [];
  try {
    return { scope: decodeURIComponent(scope), owner: decodeURIComponent(owner ?? ""), name: decodeURIComponent(name ?? "%"), cap };
  } catch {
    throw new InvalidName(`${uri} is not the URI of a bus, such as ebus:server/votes.`);
  }
}

/** Returns what an `open` frame asks for to open the bus at `uri`. A hub group is part of the scope there, not the owner. */
export function openTarget(uri: string): Address {
  const { scope, owner, ...rest } = parseAddress(uri);
  return { scope: scope === "hub" && owner ? `hub:${owner}` : scope, owner, ...rest };
}

/** Returns the name of the bus with this address. */
export const nameOf = (address: string): string => decodeURIComponent(address.split("/").at(-1) ?? "");

/** Returns whether the broker generated `name` for an unnamed bus. */
export const isUnnamed = (name: string): boolean => name.startsWith("~");
