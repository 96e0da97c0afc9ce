// Builds the served client and the widgets' stub into the Python package, and the client once more for npm.
// Fails where they have grown over their bounds: the client's is a promise to the pages that load it.
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const served = join(here, "..", "ebus_jupyter", "static");
const bounds = { "client.js": 15_000, "stub.js": 1_000 };

await build({
  absWorkingDir: here,
  entryPoints: { client: "src/index.ts", stub: "src/stub.ts" },
  outdir: served,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
});

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
