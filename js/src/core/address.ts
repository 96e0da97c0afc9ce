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
  const [where = "", cap = ""] = uri.split("#", 2);
  const path = where
    .replace(/^ebus:/, "")
    .split("/")
    .map(decodePart);
  if (!where.startsWith("ebus:") || path.length < 2 || path.length > 3 || path.includes("")) {
    throw new InvalidName(`${JSON.stringify(uri)} is not the URI of a bus; one looks like ebus:server/votes.`);
  }
  const [scope, ...rest] = path as [string, ...string[]];
  return { scope, owner: rest.length === 2 ? (rest[0] ?? "") : "", name: rest.at(-1) ?? "", cap };
}

/** Returns what an `open` frame asks for to open the bus at `uri`. A hub group is part of the scope there, not the owner. */
export function openTarget(uri: string): Address {
  const { scope, owner, ...rest } = parseAddress(uri);
  return { scope: scope === "hub" && owner ? `hub:${owner}` : scope, owner, ...rest };
}

/** Returns whether the broker generated `name` for an unnamed bus. */
export const isUnnamed = (name: string): boolean => name.startsWith("~");

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
