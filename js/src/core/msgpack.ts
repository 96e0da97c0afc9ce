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
 * Properties that are `undefined` are left out, as in JSON. A `bigint` is written exactly; integers beyond 2^53 lose their
 * last digits when they are read. Decoding accepts all valid MessagePack: map keys that are not strings become strings.
 */
import { fromParts, NDARRAY, toParts } from "./ndarray.js";

const TIMESTAMP = -1;
/** Deeper nesting counts as a cycle. */
const MAX_DEPTH = 500;

const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder();

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
 * Decodes one value. Binary data in it are views of `bytes`.
 *
 * @throws RangeError if `bytes` is not exactly one MessagePack value.
 */
export function decode(bytes: Uint8Array): unknown {
  const reader = new Reader(bytes);
  const value = reader.value();
  if (reader.at !== bytes.length) throw new RangeError("bytes after the end");
  return value;
}

class Writer {
  bytes = new Uint8Array(256);
  at = 0;
  #view = new DataView(this.bytes.buffer);

  value(value: unknown, depth: number): void {
    if (depth > MAX_DEPTH) throw new RangeError("it is nested too deeply, or contains itself");
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
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    this.#head(entries.length, 0x80, 16, 0, 0xde);
    for (const [key, item] of entries) {
      this.#reserve(16);
      this.#string(key);
      this.value(item, depth + 1);
    }
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value)) {
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
    if (value !== BigInt.asIntN(64, value) && value !== BigInt.asUintN(64, value)) throw new RangeError("an integer has at most 64 bits");
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
    if (width === 1) this.#view.setUint8(this.at, n);
    else if (width === 2) this.#view.setUint16(this.at, n);
    else this.#view.setUint32(this.at, n);
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

class Reader {
  at = 0;
  readonly #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(): unknown {
    const code = this.#uint(1);
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 15);
    if (code < 0xa0) return this.#array(code & 15);
    if (code < 0xc0) return this.#string(code & 31);
    if (code >= 0xe0) return code - 0x100;
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return code === 0xc3;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#raw(this.#count(code - 0xc4));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#count(code - 0xc7));
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#count(code - 0xcc);
      case 0xcf:
        return Number(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return Number(this.#view.getBigInt64(this.#skip(8)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (code - 0xd4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#string(this.#count(code - 0xd9));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#count(code - 0xdb));
      case 0xde:
      case 0xdf:
        return this.#map(this.#count(code - 0xdd));
      default:
        throw new RangeError("0xc1 is not a type");
    }
  }

  #array(count: number): unknown[] {
    const found: unknown[] = [];
    for (let i = 0; i < count; i++) found.push(this.value());
    return found;
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
    return found;
  }

  #string(length: number): string {
    const bytes = this.#raw(length);
    if (length > 16) return utf8Decoder.decode(bytes);
    // For short ASCII strings this is faster than the decoder.
    let text = "";
    for (const byte of bytes) {
      if (byte > 127) return utf8Decoder.decode(bytes);
      text += String.fromCharCode(byte);
    }
    return text;
  }

  #extension(length: number): unknown {
    const type = this.#view.getInt8(this.#skip(1));
    const data = this.#raw(length);
    if (type === NDARRAY) return fromParts(decode(data));
    if (type !== TIMESTAMP) return data;
    const view = new DataView(data.buffer, data.byteOffset, length);
    if (length === 4) return new Date(view.getUint32(0) * 1000);
    const [nanoseconds, seconds] =
      length === 8
        ? [view.getUint32(0) >>> 2, (view.getUint32(0) & 3) * 2 ** 32 + view.getUint32(4)]
        : [view.getUint32(0), Number(view.getBigInt64(4))];
    return new Date(seconds * 1000 + nanoseconds / 1e6);
  }

  /** Reads a count of 1, 2 or 4 bytes (`power` 0, 1 or 2). */
  #count(power: number): number {
    return this.#uint(1 << power);
  }

  #uint(width: number): number {
    const at = this.#skip(width);
    return width === 1 ? this.#view.getUint8(at) : width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #raw(length: number): Uint8Array {
    const from = this.#skip(length);
    return this.bytes.subarray(from, this.at);
  }

  #skip(n: number): number {
    const from = this.at;
    this.at += n;
    if (this.at > this.bytes.length) throw new RangeError("it ends too early");
    return from;
  }
}
