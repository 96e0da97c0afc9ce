/** The browser page. In Node, and in workers, parts of it are missing. */
export const page: Partial<Pick<Window & typeof globalThis, "document" | "location" | "navigator" | "addEventListener">> = globalThis;
