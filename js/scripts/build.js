/**
 * Builds the bundles into the Python package, and the client once more for npm.
 *
 * | bundle | source | loaded by |
 * | --- | --- | --- |
 * | `client.js` | `client/index.ts` | programs, `state.js` and `attach.js` |
 * | `state.js` | `client/state.ts` | programs that share a state, and `attach.js`; it imports the client's errors |
 * | `attach.js` | `entries/attach.ts` | the loader; it imports `client.js` and `state.js` |
 * | `stub.js` | `entries/loader.ts` | anywidget: each widget carries it |
 * | `bundle.js` | `entries/standalone.ts` | pages whose broker no server hosts |
 * | `widgets/NAME.js` | `widgets/ready/NAME.ts` | `attach.js`, for a view |
 *
 * The build fails if a bundle exceeds its size limit (the limit of the client is documented), or if a bundle contains a
 * module that it should import.
 */
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

import { buildClient } from "./client.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const source = join(root, "src");
const output = join(root, "..", "ebus_jupyter", "static");
/** The largest sizes, in bytes after gzip. */
const limits = { "client.js": 15_000, "state.js": 3_000, "attach.js": 4_500, "stub.js": 1_000 };
const views = ["chat", "presence", "whiteboard", "poll", "inspector", "status"];

const common = {
  absWorkingDir: root,
  outdir: output,
  bundle: true,
  minify: true,
  metafile: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

/** The modules whose names a served module exports. */
const served = new Map([
  [join(source, "client/index.ts"), "./client.js"],
  [join(source, "core/errors.ts"), "./client.js"],
  [join(source, "client/state.ts"), "./state.js"],
]);

/** Imports the public names from the served modules, wherever the source module is imported from. */
const servedAreExternal = {
  name: "served-are-external",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^\.\.?\// }, async ({ path, pluginData, ...options }) => {
      if (pluginData === "resolved" || options.kind === "entry-point") return undefined;
      const { importer, kind, namespace, resolveDir } = options;
      const found = await resolve(path, { importer, kind, namespace, resolveDir, pluginData: "resolved" });
      const module = served.get(found.path);
      return module ? { path: module, external: true } : found;
    });
  },
};

/** The modules of our own in a bundle, relative to `src`. */
function modulesOf({ metafile }) {
  return Object.keys(metafile.inputs)
    .map((path) => relative(source, join(root, path)).split(sep).join("/"))
    .filter((path) => !path.startsWith("../"));
}

/** Fails if a module of the bundle matches `forbidden`. */
function forbid(name, result, forbidden) {
  const found = modulesOf(result).filter((path) => forbidden.test(path));
  if (found.length > 0) throw new Error(`${name} contains ${found.join(", ")}`);
}

const client = join(output, "client.js");
await mkdir(output, { recursive: true });
await writeFile(client, await buildClient());
const state = await build({ ...common, entryPoints: { state: "src/client/state.ts" }, plugins: [servedAreExternal] });
forbid("state.js", state, /^core\/(errors|session|msgpack)|^client\/(bus|client|index)/);
forbid("stub.js", await build({ ...common, entryPoints: { stub: "src/entries/loader.ts" } }), /^(?!entries\/loader)/);
const attach = await build({ ...common, entryPoints: { attach: "src/entries/attach.ts" }, plugins: [servedAreExternal] });
forbid("attach.js", attach, /^client\/|^core\/(errors|session)/);
await build({ ...common, entryPoints: { bundle: "src/entries/standalone.ts" } });

// A view is given a client, and imports nothing at run time.
const ready = await build({
  ...common,
  outdir: join(output, "widgets"),
  entryPoints: views.map((name) => `src/widgets/ready/${name}.ts`),
  loader: { ".css": "text" },
});
forbid("widgets/*.js", ready, /^(?!widgets\/ready\/)/);

// The inspector contains uPlot, whose licence must be stated.
const inspector = join(output, "widgets", "inspector.js");
const licence = await readFile(join(root, "node_modules", "uplot", "LICENSE"), "utf8");
await writeFile(inspector, `/*! With uPlot.\n${licence.trim()}\n*/\n${await readFile(inspector, "utf8")}`);

let exceeded = false;
for (const [name, limit] of Object.entries(limits)) {
  const size = gzipSync(await readFile(join(output, name)), { level: 9 }).length;
  console.log(`${name}: ${size} bytes gzipped (limit ${limit})`);
  exceeded ||= size > limit;
}
if (exceeded) {
  console.error("A bundle exceeds its size limit.");
  process.exit(1);
}

await mkdir(join(root, "dist"), { recursive: true });
for (const name of ["client.js", "state.js"]) await copyFile(join(output, name), join(root, "dist", name));
