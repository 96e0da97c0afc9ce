import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    unstubGlobals: true,
    // Output that no test expects is a failure.
    onConsoleLog: (log) => {
      throw new Error(`unexpected console output: ${log}`);
    },
  },
});
