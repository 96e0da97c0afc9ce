import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // On a busy machine a test may take ten times its usual time.
    testTimeout: 30_000,
    unstubGlobals: true,
    // Output that no test expects is a failure.
    onConsoleLog: (log) => {
      throw new Error(`unexpected console output: ${log}`);
    },
  },
});
