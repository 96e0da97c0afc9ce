import { expect, it } from "vitest";

import * as errors from "../../src/core/errors.js";

it("an error has a name, details and temporary", () => {
  const error = errors.fromWire("rate_limited", "too fast", { retry_after: 0.5 });
  expect(error).toMatchObject({ name: "RateLimited", temporary: true, details: { retry_after: 0.5 } });
  expect(error).toBeInstanceOf(errors.Rejected);
  expect(error).not.toBeInstanceOf(errors.TooLarge);
  expect(errors.fromWire("protocol", "?").name).toBe("ProtocolError");
  expect(new errors.Closed("gone")).toBeInstanceOf(errors.EbusError);
  expect(new errors.Closed("gone")).not.toBeInstanceOf(errors.Rejected);
});

const copy = "../../src/core/errors.js?copy";

it("instanceof works across copies of the module", async () => {
  const other = (await import(copy)) as typeof errors;
  expect(other.Lagged).not.toBe(errors.Lagged);
  expect(new other.Lagged({ skipped: 1, resumeAfter: 2 })).toBeInstanceOf(errors.Lagged);
  expect(new other.TooLarge("x")).toBeInstanceOf(errors.Rejected);
  expect(new Error("x")).not.toBeInstanceOf(errors.EbusError);
});
