/** The WebSocket transport, and the address of the broker's socket. */
import { ConnectionLost, fromWire, type EbusError } from "../core/errors.js";
import type { Connect, Listener } from "./base.js";
import { page } from "./page.js";

/** How long a refused page waits for the reason, in milliseconds. */
const REFUSAL_TIMEOUT = 5_000;

/** Connects to the broker's WebSocket at `url`. */
export function webSocket(url: string): Connect {
  return (listener) => {
    const socket = new WebSocket(url);
    let wasOpen = false;
    /** Null once the transport has ended. */
    let told: Listener | null = listener;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      told?.opened();
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => told?.message(new Uint8Array(event.data));
    const end = (error: EbusError | null) => {
      told?.closed(error);
      told = null;
    };
    socket.onclose = () => wasOpen && end(null);
    // In browsers `close` follows a failure; in some versions of Node nothing does.
    socket.onerror = () => void (wasOpen ? end(null) : refusal(url).then(end));
    return {
      send: (bytes) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(bytes as Uint8Array<ArrayBuffer>);
      },
      close: () => {
        told = null;
        socket.close(1000);
      },
    };
  };
}

/** Browsers do not report why a WebSocket was refused; the same address answers a plain request with the reason. */
async function refusal(url: string): Promise<EbusError | null> {
  try {
    const signal = AbortSignal.timeout(REFUSAL_TIMEOUT);
    const answer = await fetch(url.replace(/^ws/, "http"), { credentials: "same-origin", cache: "no-store", signal });
    if (answer.status === 404) return new ConnectionLost("", { reason: "no_endpoint" });
    const { code, text } = (await answer.json()) as { code?: unknown; text?: unknown };
    return typeof code === "string" ? fromWire(code, String(text)) : null;
  } catch {
    return null;
  }
}

/**
 * Returns the address of the broker's socket.
 *
 * @param url - A `ws:` address, or the address of a Jupyter server. Default: the server of this page.
 * @param token - Jupyter's token; it becomes part of the address.
 * @throws ConnectionLost if there is no `url` and the page belongs to no server.
 */
export function socketUrl(url?: string | URL, token?: string): string {
  const target = new URL(url ?? pageUrl(), page.location?.href);
  target.protocol = target.protocol.replace(/^http/, "ws");
  target.pathname = target.pathname.replace(/\/?(ebus\/ws)?$/, "/ebus/ws");
  if (token) target.searchParams.set("token", token);
  return target.href;
}

/** JupyterLab, Notebook 7 and Voila state the server's base URL in an element, the classic notebook on the body. */
function pageUrl(): string {
  const config = page.document?.getElementById("jupyter-config-data")?.textContent;
  let base = page.document?.body.dataset.baseUrl;
  try {
    base = (JSON.parse(String(config)) as { baseUrl?: string }).baseUrl ?? base;
  } catch {
    // A broken configuration says nothing.
  }
  if (!base) {
    throw new ConnectionLost("this page belongs to no Jupyter server.");
  }
  return base;
}
