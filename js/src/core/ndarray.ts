/**
 * numpy arrays: `[dtype, shape, bytes]` on the wire, in C order.
 *
 * An array arrives as a typed array with two more properties, `shape` and `dtype`. An array whose dtype has no typed array in
 * JavaScript (complex, datetime, text, big-endian) arrives as a `RawArray`, which can be written back unchanged. A typed
 * array arrives in Python as a numpy array, with one dimension unless it was given a shape (`ndarray`). A `Uint8Array`
 * without a shape is bytes, not an array.
 */
/** The number of the MessagePack extension. */
export const NDARRAY = 1;

const TYPES = {
  "|i1": Int8Array,
  "|u1": Uint8Array,
  "|b1": Uint8Array,
  "<i2": Int16Array,
  "<u2": Uint16Array,
  "<i4": Int32Array,
  "<u4": Uint32Array,
  "<i8": BigInt64Array,
  "<u8": BigUint64Array,
  "<f4": Float32Array,
  "<f8": Float64Array,
};

type TypedArray = InstanceType<(typeof TYPES)[keyof typeof TYPES]>;
type Parts = [dtype: string, shape: readonly number[], bytes: Uint8Array];

/** A typed array with its dimensions. */
export type NDArray<T extends TypedArray = TypedArray> = T & { readonly shape: readonly number[]; readonly dtype: string };

/** An array whose dtype has no typed array in JavaScript. */
export class RawArray {
  constructor(
    readonly dtype: string,
    readonly shape: readonly number[],
    readonly bytes: Uint8Array,
  ) {}
}

/**
 * Gives a typed array a shape, so that it can be written as an array of several dimensions.
 *
 * @param shape - The dimensions. Default: one.
 * @throws RangeError if the shape does not match the number of elements.
 */
export function ndarray<T extends TypedArray>(data: T, shape: readonly number[] = [data.length]): NDArray<T> {
  const dtype = dtypeOf(data);
  if (!dtype || shape.reduce((a, b) => a * b, 1) !== data.length) {
    throw new RangeError("the shape does not fit");
  }
  return Object.assign(data, { shape, dtype });
}

/** Returns the encoded parts of an array; undefined if `value` is not an array. */
export function toParts(value: object): Parts | undefined {
  if (value instanceof RawArray) return [value.dtype, value.shape, value.bytes];
  const dtype = dtypeOf(value);
  if (!dtype) return undefined;
  const { shape, length, buffer, byteOffset, byteLength, dtype: own } = value as TypedArray & Partial<Pick<NDArray, "shape" | "dtype">>;
  if (dtype === "|u1" && !shape) return undefined;
  return [own ?? dtype, shape ?? [length], new Uint8Array(buffer, byteOffset, byteLength)];
}

/**
 * Returns the array for encoded parts; a `RawArray` if JavaScript has no typed array for it.
 *
 * @throws RangeError or TypeError if they are not the parts of an array.
 */
export function fromParts(parts: unknown): unknown {
  const [dtype, shape, bytes] = parts as Parts;
  const elements = shape.reduce((a, b) => a * b, 1);
  const type = Object.hasOwn(TYPES, dtype) && TYPES[dtype as keyof typeof TYPES];
  if (!(bytes instanceof Uint8Array)) throw new TypeError("not an array");
  if (!type) return new RawArray(dtype, shape, bytes);
  const data = new type(bytes.buffer as ArrayBuffer);
  if (elements !== data.length) throw new RangeError("not an array");
  return Object.assign(data, { shape, dtype });
}

function dtypeOf(value: object): string | undefined {
  if (!ArrayBuffer.isView(value)) return undefined;
  return Object.entries(TYPES).find(([, type]) => value instanceof type)?.[0];
}
