/** Reads the scenarios of `tests/vectors` strictly: a field that no code reads is an error. */
import { decode, encode } from "@msgpack/msgpack";
import { expect } from "vitest";

export type Json = any;

declare global {
  interface ImportMeta {
    glob(pattern: string, how: { eager: true; query: "?raw"; import: "default" }): Record<string, string>;
  }
}

const found = import.meta.glob("../../../tests/vectors/*.json", { eager: true, query: "?raw", import: "default" });
const byName = new Map(Object.entries(found).map(([path, text]) => [path.replace(/.*\/|\.json$/g, ""), JSON.parse(text) as File]));

export const files = [...byName.keys()];

export interface File extends Record<string, Json> {
  cases: Case[];
}

export interface Case extends Record<string, Json> {
  name: string;
}

export function load(name: string): File {
  const file = byName.get(name);
  if (!file || file.cases.length === 0) throw new Error(`${name}.json has no scenario`);
  if (new Set(file.cases.map((each) => each.name)).size < file.cases.length)
    throw new Error(`two scenarios of ${name}.json have the same name`);
  return file;
}

/** An object of a scenario. Reading a field removes it. */
export class Fields {
  readonly #left: Map<string, Json>;

  constructor(readonly given: Record<string, Json>) {
    this.#left = new Map(Object.entries(given));
  }

  has(name: string): boolean {
    return this.#left.has(name);
  }

  take(name: string, ...or: [] | [Json]): Json {
    if (!this.#left.has(name) && or.length === 0) throw new Error(`${name} is missing in ${JSON.stringify(this.given)}`);
    const value = this.#left.has(name) ? this.#left.get(name) : or[0];
    this.#left.delete(name);
    return value;
  }

  /** Takes those of the fields that exist. */
  some(...names: string[]): Record<string, Json> {
    return Object.fromEntries(names.filter((name) => this.has(name)).map((name) => [name, this.take(name)]));
  }

  end(): void {
    if (this.#left.size > 0) throw new Error(`unknown fields ${[...this.#left.keys()].join(", ")} of ${JSON.stringify(this.given)}`);
  }
}

/** Calls `read` with the fields of `given`, and fails if it leaves any of them. */
export function reading<T>(given: Record<string, Json>, read: (fields: Fields) => T): T {
  const fields = new Fields(given);
  const result = read(fields);
  fields.end();
  return result;
}

export const bytes = (hex: string): Uint8Array => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const hex = (data: Uint8Array): string => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

// --- frames, by the layout in frames.json ---------------------------------------------------------------------------

interface Layout {
  readonly tag: number;
  readonly from: "client" | "broker";
  readonly fields: readonly string[];
  readonly defaults: Readonly<Record<string, Json>>;
}

export const layout = load("frames").layout as Record<string, Layout>;

function encodeFields(name: string, given: Record<string, Json>, people: Record<string, Json>): Json[] {
  const { fields, defaults } = layout[name]!;
  for (const field of Object.keys(given)) if (!fields.includes(field)) throw new Error(`a ${name} has no ${field}`);
  return fields.map((field) => {
    const value = field in given ? given[field] : defaults[field];
    if (value === undefined) throw new Error(`a ${name} has a ${field}`);
    if (["sender", "you", "who"].includes(field))
      return encodeFields("participant", typeof value === "string" ? people[value] : value, people);
    if (name === "presence" && field === "here") return value.map((seat: Json) => encodeFields("seat", seat, people));
    if (name === "page" && field === "messages") return value.map((each: Json) => [67, ...encodeFields("delivery", each, people)]);
    return value;
  });
}

/** Encodes a message from the broker. */
export function encodeMessage(frames: readonly Json[], people: Record<string, Json>): Uint8Array {
  return encode(
    frames.map((frame) => {
      const [[name, given]] = Object.entries(frame as Record<string, Json>) as [[string, Json]];
      return [layout[name]!.tag, ...encodeFields(name, given, people)];
    }),
  );
}

/** Decodes a client's message into frames as scenarios name them, with all fields. */
export function decodeMessage(message: Uint8Array): Record<string, Json>[] {
  return (decode(message, { useBigInt64: false }) as Json[][]).map(([tag, ...values]) => {
    const [name, { fields, defaults }] = Object.entries(layout).find(([, each]) => each.tag === tag && each.from === "client")!;
    expect(values.length).toBeLessThanOrEqual(fields.length);
    return { [name]: Object.fromEntries(fields.map((field, i) => [field, i < values.length ? values[i] : defaults[field]])) };
  });
}
