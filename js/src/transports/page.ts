/** The browser page. In Node, and in workers, parts of it are missing. */
export const page: Partial<Pick<Window & typeof globalThis, "document" | "location" | "navigator" | "addEventListener">> = globalThis;

/** Returns 32 random hexadecimal digits. (`crypto.randomUUID` exists in secure contexts only.) */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
