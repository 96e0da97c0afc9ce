/** Invalid frames and values; `tests/vectors` holds the valid ones. */
import { expect, it } from "vitest";

import { encodeValue, fromBroker } from "../../src/core/frames.js";
import { encode } from "../../src/core/msgpack.js";
import { message } from "../fake_broker.js";

it("a message that is not an array of frames is refused", () => {
  for (const nonsense of [message(["x"]), encode("hello"), Uint8Array.of(0x91), Uint8Array.of(0xc1)]) {
    expect(() => fromBroker(nonsense)).toThrow(/does not speak ebus protocol/);
  }
});

it("a value that cannot be encoded is refused", () => {
  expect(() => encodeValue({ f: () => 1 }, "votes")).toThrow(/votes: the value cannot be encoded: it contains a function/);
});
