// Builds the served client and the widgets' stub into the Python package, and the client once more for npm.
// Fails where they have grown over their bounds: the client's is a promise to the pages that load it.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const served = join(here, "..", "ebus_jupyter", "static");
const bounds = { "client.js": 15_000, "attach.js": 4_000, "stub.js": 1_000 };

const faces = ["chat", "presence", "whiteboard", "poll", "inspector", "status"];

const common = {
  absWorkingDir: here,
  outdir: served,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

/** What stands beside the client takes the client's public names from it, instead of holding them once more. */
const besideTheClient = {
  name: "beside-the-client",
  setup(build) {
    build.onResolve({ filter: /^\.\.?\/(client|state|errors|index)\.js$/ }, () => ({ path: "./client.js", external: true }));
  },
};

await build({ ...common, entryPoints: { client: "src/index.ts", stub: "src/stub.ts" } });
await build({ ...common, entryPoints: { attach: "src/attach.ts" }, plugins: [besideTheClient] });
// All in one, for a page that has it from its kernel, because no server serves it.
await build({ ...common, entryPoints: { bundle: "src/standalone.ts" } });

// The faces of the ready-made widgets. They are handed a client, and import nothing at run time.
await build({
  ...common,
  outdir: join(served, "widgets"),
  entryPoints: faces.map((name) => `src/widgets/${name}.ts`),
  loader: { ".css": "text" },
});
// The one that holds somebody else's work says so, and under which licence.
const inspector = join(served, "widgets", "inspector.js");
const licence = await readFile(join(here, "node_modules", "uplot", "LICENSE"), "utf8");
await writeFile(inspector, `/*! With uPlot.\n${licence.trim()}\n*/\n${await readFile(inspector, "utf8")}`);

let grown = false;
for (const [name, most] of Object.entries(bounds)) {
  const size = gzipSync(await readFile(join(served, name)), { level: 9 }).length;
  console.log(`${name}: ${size} bytes gzipped (at most ${most})`);
  grown ||= size > most;
}
if (grown) {
  console.error("A bundle is over its bound.");
  process.exit(1);
}

await mkdir(join(here, "dist"), { recursive: true });
await copyFile(join(served, "client.js"), join(here, "dist", "client.js"));
