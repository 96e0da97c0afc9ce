/**
 * How frames travel: one seam. A transport carries whole messages, in order, each once, until it ends. It does not
 * reconnect, retry or buffer: that is the connection's business, and only there.
 *
 * A transport reports what happens to a `Listener`: `opened` at most once, then `message` for each message, then `closed`
 * once (with an error where trying again won't help). After `close()` it reports nothing more.
 */
import { ConnectionLost, fromWire, type EbusError } from "./errors.js";
import { page } from "./util.js";

export interface Listener {
  opened(): void;
  message(bytes: Uint8Array): void;
  closed(error: EbusError | null): void;
}

export interface Transport {
  /** Hand over one message. Without effect once the connection has ended. */
  send(bytes: Uint8Array): void;
  /** End the connection. Safe to call twice. */
  close(): void;
}

/** Opens a connection, each time a new one. May throw an `EbusError` where no attempt can succeed. */
export type Connect = (listener: Listener) => Transport;

/** A broker's WebSocket at `url`. */
export function webSocket(url: string): Connect {
  return (listener) => {
    const socket = new WebSocket(url);
    let wasOpen = false;
    let silent = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      if (!silent) listener.opened();
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (!silent) listener.message(new Uint8Array(event.data));
    };
    const end = (error: EbusError | null) => {
      if (!silent) listener.closed(error);
      silent = true;
    };
    socket.onclose = () => {
      if (wasOpen) end(null);
    };
    // In browsers a failure is followed by `close`; in some versions of Node, by nothing.
    socket.onerror = () => {
      if (wasOpen) end(null);
      else void refusal(url).then(end);
    };
    return {
      send: (bytes) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(bytes as Uint8Array<ArrayBuffer>);
      },
      close: () => {
        silent = true;
        socket.close(1000);
      },
    };
  };
}

/** A page is not told why its WebSocket was turned away; the same address tells it to a plain request. */
async function refusal(url: string): Promise<EbusError | null> {
  try {
    const signal = AbortSignal.timeout(5000);
    const answer = await fetch(url.replace(/^ws/, "http"), { credentials: "same-origin", cache: "no-store", signal });
    if (answer.status !== 401 && answer.status !== 403) return null;
    const { code, text } = (await answer.json()) as { code?: unknown; text?: unknown };
    return typeof code === "string" ? fromWire(code, String(text)) : null;
  } catch {
    return null;
  }
}

/**
 * The address of the broker's socket: `url` (a `ws:` address, or a Jupyter server's), or the server of this page.
 * Throws `ConnectionLost` where the page belongs to none.
 */
export function socketUrl(url?: string | URL, token?: string): string {
  const target = new URL(url ?? pageUrl(), page.location?.href);
  target.protocol = target.protocol.replace(/^http/, "ws");
  if (!target.pathname.endsWith("/ebus/ws")) target.pathname = `${target.pathname.replace(/\/$/, "")}/ebus/ws`;
  if (token) target.searchParams.set("token", token);
  return target.href;
}

/** Jupyter's pages hold the server's base URL in an element (JupyterLab, Notebook 7, Voila) or on the body (classic). */
function pageUrl(): string {
  const config = page.document?.getElementById("jupyter-config-data")?.textContent;
  const base = config ? (JSON.parse(config) as { baseUrl?: string }).baseUrl : page.document?.body.dataset.baseUrl;
  if (!base) {
    throw new ConnectionLost("this page belongs to no Jupyter server that it knows of; give connect() the server's URL.", {
      reason: "no_server",
    });
  }
  return base;
}

/** Tries `first`; where it has never worked, `second` instead. Once `first` has worked, only it is tried again. */
export function orElse(first: Connect, second: Connect): Connect {
  let worked = false;
  return (listener) => {
    let current: Transport | null = null;
    let over = false;
    current = first({
      opened: () => {
        worked = true;
        listener.opened();
      },
      message: (bytes) => listener.message(bytes),
      closed: (error) => {
        if (worked || over || error?.temporary === false) return listener.closed(error);
        try {
          current = second(listener);
        } catch {
          listener.closed(null);
        }
      },
    });
    return {
      send: (bytes) => current?.send(bytes),
      close: () => {
        over = true;
        current?.close();
      },
    };
  };
}
