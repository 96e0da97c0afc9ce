/** Builds the module `client.js`, as small as it gets. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { minify } from "terser";

import { mangleOptions, mangleWords } from "./mangle.js";

/** Returns the text of the module. */
export async function buildClient() {
  const { outputFiles } = await build({
    absWorkingDir: join(dirname(fileURLToPath(import.meta.url)), ".."),
    entryPoints: ["src/client/index.ts"],
    write: false,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
    // Fields without a value take no code.
    tsconfigRaw: { compilerOptions: { useDefineForClassFields: false, verbatimModuleSyntax: true } },
    plugins: [mangleWords],
    ...mangleOptions,
  });
  // terser saves 400 bytes more.
  const compress = { passes: 3, unsafe: true, unsafe_arrows: true, unsafe_methods: true, pure_getters: true, conditionals: false };
  const { code } = await minify(outputFiles[0].text, { module: true, ecma: 2022, compress });
  return code;
}
