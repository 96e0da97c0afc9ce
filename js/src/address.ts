/**
 * Where a bus lives: a scope, the owner of that scope, and a name; printed as a URI (`ebus:user/alice/votes`). A
 * capability may follow (`ebus:kernel/4f…/votes#CAPABILITY`): buses of a kernel and unnamed ones open with nothing less.
 */
import { InvalidName } from "./errors.js";

export interface Address {
  readonly scope: string;
  readonly owner: string;
  readonly name: string;
  readonly cap: string;
}

/** Read the URI of a bus. Throws `InvalidName` where it is none. */
export function parseAddress(uri: string): Address {
  const [where = "", cap = ""] = uri.split("#", 2);
  const path = where.replace(/^ebus:/, "").split("/").map(decoded);
  if (!where.startsWith("ebus:") || path.length < 2 || path.length > 3 || path.includes("")) {
    throw new InvalidName(`${JSON.stringify(uri)} is not the URI of a bus; one looks like ebus:server/votes.`);
  }
  const [scope, ...rest] = path as [string, ...string[]];
  return { scope, owner: rest.length === 2 ? (rest[0] ?? "") : "", name: rest.at(-1) ?? "", cap };
}

/** How to ask for the bus at `uri`: a group of the hub is part of the scope. */
export function whereabouts(uri: string): Address {
  const { scope, owner, ...rest } = parseAddress(uri);
  return { scope: scope === "hub" && owner ? `hub:${owner}` : scope, owner, ...rest };
}

/** What the broker's own names for unnamed buses begin with. */
export const isUnnamed = (name: string): boolean => name.startsWith("~");

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
