/** Binary in values: a comm carries it as `DataView`, the bus as bytes. */

/** A copy of `value` in which every piece of binary is what `make` makes of its bytes. */
export function mapBinary(value: unknown, make: (bytes: Uint8Array) => unknown): unknown {
  if (value instanceof ArrayBuffer) return make(new Uint8Array(value));
  if (ArrayBuffer.isView(value)) return make(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (Array.isArray(value)) return value.map((item) => mapBinary(item, make));
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapBinary(item, make)]));
}

export const asBytes = (value: unknown) => mapBinary(value, (bytes) => bytes);

/** Each in a buffer of its own, as comms bring it: widgets take the whole buffer of a view. */
export const asViews = (value: unknown) => mapBinary(value, (bytes) => new DataView(bytes.slice().buffer));
