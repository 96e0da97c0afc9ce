/**
 * A MessagePack codec. It is a third of the size of the library that the tests compare it with.
 *
 * | JavaScript | wire format | Python |
 * | --- | --- | --- |
 * | object, Array, string, number, boolean, null | the same | dict, list, str, int or float, bool, None |
 * | Date | timestamp extension | datetime with a time zone |
 * | Uint8Array, DataView, ArrayBuffer | bin | bytes |
 * | other typed arrays, `ndarray(…)` | extension 1: see `ndarray` | numpy array |
 *
 *
 * Properties that are `undefined` are left out, as in JSON. Other objects of the platform (Map, Set, Promise, URL, Error, …)
 * are refused. A `bigint` is written exactly; integers beyond 2^53 lose their last digits when they are read. Decoding accepts
 * all valid MessagePack: map keys that are not strings become strings.
 */
import { fromParts, NDARRAY, toParts } from "./ndarray.js";

const TIMESTAMP = -1;
/** Deeper nesting counts as a cycle. */
const MAX_DEPTH = 500;

const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** By the number of bytes. */
const SETTERS = { 1: "setUint8", 2: "setUint16", 4: "setUint32" } as const;
const GETTERS = { 1: "getUint8", 2: "getUint16", 4: "getUint32" } as const;
/** By code from 0xca: the numbers. */
const NUMBERS = ["Float32", "Float64", "Uint8", "Uint16", "Uint32", "BigUint64", "Int8", "Int16", "Int32", "BigInt64"] as const;
/** By code from 0xc0: the number of bytes that follow, or (negative) the number of bytes of a count that follows. */
const FOLLOWING = [0, NaN, 0, 0, -1, -2, -4, -1, -2, -4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17, -1, -2, -4, -2, -4, -2, -4];

/** A value that is encoded already; the encoder inserts its bytes. */
export class Raw {
  constructor(readonly bytes: Uint8Array) {}
}

/**
 * Encodes a value.
 *
 * @throws TypeError or RangeError if MessagePack cannot carry it: a function, a symbol, a cycle, an invalid date.
 */
export function encode(value: unknown): Uint8Array {
  const writer = new Writer();
  writer.value(value, 0);
  return writer.bytes.slice(0, writer.at);
}

/**
 * Decodes one value. It shares no memory with `bytes`.
 *
 * @param freeze - Freeze the objects and arrays in it.
 * @throws RangeError or TypeError if `bytes` is not exactly one MessagePack value that JavaScript can hold.
 */
export function decode(bytes: Uint8Array, freeze = false): unknown {
  const reader = new Reader(bytes, freeze);
  const value = reader.value();
  if (reader.at !== bytes.length) throw new RangeError("it is too long");
  return value;
}

class Writer {
  bytes = new Uint8Array(256);
  at = 0;
  #view = new DataView(this.bytes.buffer);

  value(value: unknown, depth: number): void {
    if (depth > MAX_DEPTH) throw new RangeError("it contains itself");
    this.#reserve(16);
    switch (typeof value) {
      case "undefined":
        return this.#byte(0xc0);
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "number":
        return this.#number(value);
      case "bigint":
        return this.#big(value);
      case "string":
        return this.#string(value);
      case "object":
        return this.#object(value, depth);
      default:
        throw new TypeError(`it contains a ${typeof value}`);
    }
  }

  #object(value: object | null, depth: number): void {
    if (value === null) return this.#byte(0xc0);
    if (Array.isArray(value)) {
      this.#head(value.length, 0x90, 16, 0, 0xdc);
      for (const item of value) this.value(item, depth + 1);
      return;
    }
    if (value instanceof Raw) return this.#raw(value.bytes);
    if (value instanceof Date) return this.#date(value);
    const parts = toParts(value);
    if (parts) {
      const content = encode(parts);
      this.#head(content.length, 0, 0, 0xc7, 0xc8);
      this.#byte(NDARRAY);
      return this.#raw(content);
    }
    if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
      const bytes = value instanceof ArrayBuffer ? new Uint8Array(value) : new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      this.#head(bytes.length, 0, 0, 0xc4, 0xc5);
      return this.#raw(bytes);
    }
    // An object of the platform (Map, Promise, URL, Error, …) has its content elsewhere than in its properties.
    const kind = Object.prototype.toString.call(value);
    if (kind !== "[object Object]") throw new TypeError(`it contains an ${kind}`);
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    this.#head(entries.length, 0x80, 16, 0, 0xde);
    for (const each of entries) for (const item of each) this.value(item, depth + 1);
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#byte(0xcb);
      this.#view.setFloat64(this.at, value);
      this.at += 8;
    } else if (value > 0xffffffff || value < -0x80000000) {
      this.#big(BigInt(value));
    } else if (value >= -32 && value < 128) {
      this.#byte(value & 0xff);
    } else if (value >= 0) {
      this.#head(value, 0, 0, 0xcc, 0xcd);
    } else {
      this.#byte(0xd2);
      this.#view.setInt32(this.at, value);
      this.at += 4;
    }
  }

  #big(value: bigint): void {
    if (value !== BigInt.asIntN(64, value) && value !== BigInt.asUintN(64, value)) throw new RangeError("an integer is too large");
    this.#byte(value < 0 ? 0xd3 : 0xcf);
    this.#view.setBigInt64(this.at, value);
    this.at += 8;
  }

  #string(value: string): void {
    this.#reserve(5 + 3 * value.length);
    const from = this.at + 5;
    const { written } = utf8Encoder.encodeInto(value, this.bytes.subarray(from));
    this.#head(written, 0xa0, 32, 0xd9, 0xda);
    this.bytes.copyWithin(this.at, from, from + written);
    this.at += written;
  }

  #date(value: Date): void {
    const ms = value.getTime();
    const seconds = Math.floor(ms / 1000);
    this.#head(12, 0, 0, 0xc7, 0);
    this.#byte(TIMESTAMP);
    this.#view.setUint32(this.at, (ms - seconds * 1000) * 1e6);
    this.#view.setBigInt64(this.at + 4, BigInt(seconds));
    this.at += 12;
  }

  /** Writes a count in its shortest form: within `fix` (below `few`), or after `code8` (0: none), `code16` or `code16 + 1`. */
  #head(n: number, fix: number, few: number, code8: number, code16: number): void {
    if (n < few) return this.#byte(fix | n);
    const width = code8 && n < 0x100 ? 1 : n < 0x10000 ? 2 : 4;
    this.#byte(width === 1 ? code8 : width === 2 ? code16 : code16 + 1);
    this.#view[SETTERS[width]](this.at, n);
    this.at += width;
  }

  #byte(byte: number): void {
    this.bytes[this.at++] = byte;
  }

  #raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  #reserve(n: number): void {
    if (this.at + n <= this.bytes.length) return;
    const larger = new Uint8Array(2 * (this.at + n));
    larger.set(this.bytes);
    this.bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/** Reads values one after the other. */
export class Reader {
  at = 0;
  readonly #view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    readonly freeze = false,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(): unknown {
    const code = this.#uint(1);
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 15);
    if (code < 0xa0) return this.#array(code & 15);
    if (code < 0xc0) return this.#string(code & 31);
    if (code >= 0xe0) return code - 0x100;
    const read = NUMBERS[code - 0xca];
    if (read) return Number(this.#view[`get${read}`](this.#skip(FOLLOWING[code - 0xc0] ?? NaN)));
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return code === 0xc3;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#raw(this.#count(code - 0xc4)).slice();
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#count(code - 0xc7));
      case 0xc1:
        throw new RangeError("it is invalid");
    }
    if (code < 0xd9) return this.#extension(1 << (code - 0xd4));
    if (code < 0xdc) return this.#string(this.#count(code - 0xd9));
    return code < 0xde ? this.#array(this.#count(code - 0xdb)) : this.#map(this.#count(code - 0xdd));
  }

  /** Reads an array; `item` reads the item with the given index, and is told those before it. */
  list<T>(item: (i: number, before: readonly T[]) => T): T[] {
    const code = this.#uint(1);
    if (code < 0x90 || (code > 0x9f && code !== 0xdc && code !== 0xdd)) throw new RangeError("it is invalid");
    return this.#items(code < 0xdc ? code & 15 : this.#count(code - 0xdb), item);
  }

  /** Reads over one value, and returns its bytes: a copy, unless they are most of what there is. */
  raw(): Uint8Array {
    const from = this.at;
    for (let left = 1; left > 0; left--) {
      const code = this.#uint(1);
      if (code < 0x80 || code >= 0xe0) continue;
      if (code < 0xa0) left += (code & 15) * (code < 0x90 ? 2 : 1);
      else if (code < 0xc0) this.#skip(code & 31);
      else {
        const following = FOLLOWING[code - 0xc0] ?? NaN;
        const count = following < 0 ? this.#uint(-following) : following;
        if (code >= 0xdc) left += count * (code < 0xde ? 1 : 2);
        // The type of an extension is a byte more.
        else this.#skip(count + (code > 0xc6 && code < 0xca ? 1 : 0));
      }
    }
    const found = this.bytes.subarray(from, this.at);
    // A view would keep the memory of everything that came with it.
    return 2 * found.length > found.buffer.byteLength ? found : found.slice();
  }

  #array(count: number): unknown[] {
    return this.#frozen(this.#items(count, () => this.value()));
  }

  #items<T>(count: number, item: (i: number, before: readonly T[]) => T): T[] {
    const found: T[] = [];
    for (let i = 0; i < count; i++) found.push(item(i, found));
    return found;
  }

  #frozen<T extends object>(value: T): T {
    return this.freeze ? Object.freeze(value) : value;
  }

  #map(count: number): Record<string, unknown> {
    const found: Record<string, unknown> = {};
    for (let i = 0; i < count; i++) {
      const key = String(this.value());
      const value = this.value();
      // An assignment would set the object's prototype.
      if (key === "__proto__") Object.defineProperty(found, key, { value, enumerable: true, configurable: true, writable: true });
      else found[key] = value;
    }
    return this.#frozen(found);
  }

  #string(length: number): string {
    return utf8Decoder.decode(this.#raw(length));
  }

  #extension(length: number): unknown {
    const type = this.#view.getInt8(this.#skip(1));
    const data = this.#raw(length);
    if (type === NDARRAY) return fromParts(decode(data));
    if (type !== TIMESTAMP) return data.slice();
    const view = new DataView(data.buffer, data.byteOffset, length);
    const word = view.getUint32(0);
    const [nanoseconds, seconds] =
      length === 4
        ? [0, word]
        : length === 8
          ? [word >>> 2, (word & 3) * 2 ** 32 + view.getUint32(4)]
          : [word, Number(view.getBigInt64(4))];
    const found = new Date(seconds * 1000 + nanoseconds / 1e6);
    if (isNaN(+found)) throw new RangeError("it is invalid");
    return found;
  }

  /** Reads a count of 1, 2 or 4 bytes (`power` 0, 1 or 2). */
  #count(power: number): number {
    return this.#uint(1 << power);
  }

  #uint(width: number): number {
    return this.#view[GETTERS[width as 1]](this.#skip(width));
  }

  #raw(length: number): Uint8Array {
    const from = this.#skip(length);
    return this.bytes.subarray(from, this.at);
  }

  #skip(n: number): number {
    const from = this.at;
    this.at += n;
    if (!(this.at <= this.bytes.length)) throw new RangeError("it is too short");
    return from;
  }
}
