import * as library from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";

import { decode, encode } from "../../src/core/msgpack.js";
import { ndarray, RawArray } from "../../src/core/ndarray.js";

const NUMBERS = [
  0,
  1,
  -1,
  127,
  128,
  -32,
  -33,
  255,
  256,
  65535,
  65536,
  -128,
  -129,
  -32769,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  -(2 ** 31) - 1,
].concat([2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, -(2 ** 53) + 1, 0.5, -1e300, Infinity, -Infinity, NaN]);
const VALUES: unknown[] = [
  null, true, false, "", "tea", "grüße 😀", "x".repeat(31), "x".repeat(32), "é".repeat(200), "x".repeat(70_000),
  [], [1, [2, [3]]], Array.from({ length: 20 }, (_, i) => i), {}, { a: { b: [null, { c: "d" }] } },
  Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`k${i}`, i])),
  new Uint8Array(0), new Uint8Array(300).fill(7), new Uint8Array(70_000).fill(9),
  new Date(0), new Date(1_700_000_000_123), new Date(-86_400_000),
]; // prettier-ignore

describe("interoperates with @msgpack/msgpack:", () => {
  const named = [...NUMBERS, ...VALUES].map((value) => [String(value).slice(0, 40), value] as const);
  it.each(named)("%s", (_, value) => {
    expect(library.decode(encode(value))).toEqual(value);
    expect(decode(library.encode(value))).toEqual(value);
    expect(decode(encode(value))).toEqual(value);
  });
});

it("undefined properties are left out, as in JSON", () => {
  expect(decode(encode({ a: undefined, b: [undefined] }))).toEqual({ b: [null] });
});

it("a bigint is encoded exactly", () => {
  expect(library.decode(encode([2n ** 64n - 1n, -(2n ** 63n)]), { useBigInt64: true })).toEqual([2n ** 64n - 1n, -(2n ** 63n)]);
  expect(() => encode(2n ** 64n)).toThrow(/too large/);
});

it("values that cannot be encoded are named", () => {
  const cycle: unknown[] = [];
  cycle.push(cycle);
  expect(() => encode(cycle)).toThrow(/contains itself/);
  expect(() => encode({ draw: () => 1 })).toThrow(/function/);
  expect(() => encode(new Date("never"))).toThrow();
});

it("non-string keys become strings, and __proto__ is a plain key", () => {
  const bytes = Uint8Array.of(0x82, 0xc0, 1, 0x91, 2, 3); // {nil: 1, [2]: 3}
  expect(decode(bytes)).toEqual({ null: 1, "2": 3 });
  const proto = decode(Uint8Array.of(0x81, 0xa9, ...new TextEncoder().encode("__proto__"), 0x80)) as object;
  expect(Object.keys(proto)).toEqual(["__proto__"]);
  expect(Object.getPrototypeOf(proto)).toBe(Object.prototype);
});

it("truncated and overlong input is refused", () => {
  const whole = encode({ a: ["tea", 1.5, new Uint8Array(3), new Date(5)] });
  for (let n = 0; n < whole.length; n++) expect(() => decode(whole.subarray(0, n))).toThrow(RangeError);
  expect(() => decode(Uint8Array.of(1, 2))).toThrow(/too long/);
  expect(() => decode(Uint8Array.of(0xdd, 255, 255, 255, 255))).toThrow(RangeError);
  expect(() => decode(Uint8Array.of(0xc1))).toThrow(RangeError);
});

it("arrays keep their shape, and bytes stay bytes", () => {
  const picture = decode(encode(ndarray(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3])));
  expect(picture).toBeInstanceOf(Float32Array);
  expect(picture).toMatchObject({ shape: [2, 3], dtype: "<f4", length: 6 });
  expect(decode(encode(new Int16Array([1, -1])))).toMatchObject({ shape: [2], dtype: "<i2" });
  expect(decode(encode(new Uint8Array([1])))).toEqual(new Uint8Array([1]));
  const odd = new RawArray("<c16", [1], new Uint8Array(16));
  expect(decode(encode(odd))).toEqual(odd);
  expect(() => ndarray(new Float32Array(5), [2, 3])).toThrow(/does not fit/);
});
