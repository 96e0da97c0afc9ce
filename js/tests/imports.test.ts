/** The import rules between the rooms of `src`. Type-only imports count. */
import ts from "typescript";
import { expect, it } from "vitest";

/** The rooms that each room may import, besides itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  core: [],
  transports: ["core"],
  client: ["core", "transports"],
  widgets: ["core", "transports", "client"],
  entries: ["core", "transports", "client", "widgets"],
};

const texts = import.meta.glob("../src/**/*.ts", { eager: true, query: "?raw", import: "default" });
const files = new Map(Object.entries(texts).map(([path, text]) => [path.replace("../src/", ""), text]));
const imports = new Map([...files].map(([file, text]) => [file, importsOf(file, text)]));

/** Returns the files that a file imports or re-exports from, relative to `src`. */
function importsOf(file: string, text: string): string[] {
  const specifiers = ts.preProcessFile(text).importedFiles.map(({ fileName }) => fileName);
  const relative = specifiers.filter((specifier) => specifier.startsWith(".") && specifier.endsWith(".js"));
  return relative.map((specifier) => new URL(specifier, `file:///${file}`).pathname.slice(1).replace(/\.js$/, ".ts"));
}

const roomOf = (file: string): string => file.split("/")[0]!;
const violations = (forbidden: (from: string, to: string) => boolean): string[] =>
  [...imports].flatMap(([from, all]) => all.filter((to) => forbidden(from, to)).map((to) => `${from} → ${to}`));

/** Returns a circle of imports that can be reached from `file`. `done` collects the files that lead to none. */
function circle(file: string, path: readonly string[], done: Set<string>): readonly string[] | undefined {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
  if (done.has(file)) return undefined;
  for (const next of imports.get(file) ?? []) {
    const found = circle(next, [...path, file], done);
    if (found) return found;
  }
  done.add(file);
  return undefined;
}

it("every import is a file of src", () => {
  expect(files.size).toBeGreaterThan(30);
  expect(violations((_, to) => !files.has(to))).toEqual([]);
});

it("rooms import only the rooms below them", () => {
  expect(new Set([...files.keys()].map(roomOf))).toEqual(new Set(Object.keys(ALLOWED)));
  expect(violations((from, to) => roomOf(from) !== roomOf(to) && !ALLOWED[roomOf(from)]!.includes(roomOf(to)))).toEqual([]);
});

it("widgets import the public names of the client", () => {
  const named = ["client/index.ts", "client/state.ts"];
  expect(violations((from, to) => roomOf(from) === "widgets" && roomOf(to) === "client" && !named.includes(to))).toEqual([]);
});

it("no files import each other in a circle", () => {
  const done = new Set<string>();
  for (const file of files.keys()) expect(circle(file, [], done)).toBeUndefined();
});
