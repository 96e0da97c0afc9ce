/** Binary data in trait values: a comm carries it as `DataView`s, a bus as bytes. */

/** Returns a copy of `value` with each piece of binary data converted by `convert`. */
export function mapBinary(value: unknown, convert: (bytes: Uint8Array) => unknown): unknown {
  if (value instanceof ArrayBuffer) return convert(new Uint8Array(value));
  if (ArrayBuffer.isView(value)) return convert(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (Array.isArray(value)) return value.map((item) => mapBinary(item, convert));
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapBinary(item, convert)]));
}

export const asBytes = (value: unknown) => mapBinary(value, (bytes) => bytes);

/** Each view gets a buffer of its own, as comms deliver them: widgets use the whole buffer of a view. */
export const asViews = (value: unknown) => mapBinary(value, (bytes) => new DataView(bytes.slice().buffer));
