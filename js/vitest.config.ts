import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    unstubGlobals: true,
    // A warning that no test expects is a failure.
    onConsoleLog: (log) => {
      throw new Error(`nobody expected this on the console: ${log}`);
    },
  },
});
