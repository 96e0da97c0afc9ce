/** What is no frame, and no value; `tests/vectors` holds what is. */
import { expect, it } from "vitest";

import { encodeValue, fromBroker } from "../src/frames.js";
import { encode } from "../src/msgpack.js";
import { message } from "./broker.js";

it("names what is no array of frames", () => {
  for (const nonsense of [message(["x"]), encode("hello"), Uint8Array.of(0x91), Uint8Array.of(0xc1)]) {
    expect(() => fromBroker(nonsense)).toThrow(/array of ebus frames.*Reload the page/s);
  }
});

it("names a value that can't travel", () => {
  expect(() => encodeValue({ f: () => 1 }, "votes")).toThrow(/votes: the value can't travel: it holds a function/);
});
