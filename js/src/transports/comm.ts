/**
 * The comm transport: frames travel through the kernel, for pages that cannot reach the broker themselves.
 *
 * Frames are the buffers of a widget's custom messages, in a tunnel whose id the page generates (`CommTunnel` is its Python
 * side). Any widget of the kernel can carry the tunnel. When that widget is closed, the connection opens another tunnel over
 * another widget.
 *
 * Messages are numbered (`n`) in each direction: Jupyter drops comm messages beyond its rate limits without a word. A hole
 * ends the tunnel, and the connection opens another one and resumes. So that few are dropped, all that is sent in one turn of
 * the event loop travels in one comm message.
 *
 * A kernel handles comm messages between cells only, so frames from the page wait while a cell runs. A WebSocket is
 * preferred wherever there is one.
 */
import { onAbort } from "../core/abort.js";
import { ConnectionLost } from "../core/errors.js";
import type { Connect, Listener, Transport } from "./base.js";
import { randomId } from "./page.js";

/** The part of a widget's model that carries a tunnel. */
export interface CommModel {
  on(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  off(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBufferView[]): void;
}

interface TunnelMessage {
  readonly ebus?: string;
  readonly channel?: string;
  readonly n?: number;
}

/** A widget that can carry tunnels. One model may be here several times, for its views. */
type Carrier = readonly [CommModel];

/** The live widgets of each kernel on this page; all copies of this module share them. */
const COMMS: unique symbol = Symbol.for("ebus.comms.v2");

function carriersOf(kernel: string): Set<Carrier> {
  const page = globalThis as { [COMMS]?: Map<string, Set<Carrier>> | undefined };
  const comms = (page[COMMS] ??= new Map<string, Set<Carrier>>());
  const carriers = comms.get(kernel) ?? new Set();
  comms.set(kernel, carriers);
  return carriers;
}

/**
 * Connects through the kernel whose client is named `kernel`.
 *
 * @param model - A widget of that kernel; it can carry tunnels until `signal` aborts.
 */
export function viaKernel(kernel: string, { model, signal }: { readonly model: CommModel; readonly signal: AbortSignal }): Connect {
  const carriers = carriersOf(kernel);
  const carrier = [model] as const;
  carriers.add(carrier);
  onAbort(signal, () => carriers.delete(carrier));
  return (listener) => openTunnel(kernel, carriers, listener);
}

function openTunnel(kernel: string, carriers: Set<Carrier>, listener: Listener): Transport {
  const [model] = [...carriers].at(-1) ?? [];
  if (!model) throw new ConnectionLost("no widget of this kernel is left on the page to carry the bus.");
  const channel = randomId();
  let ended = false;
  let received = 0;
  let sent = 0;
  let waiting: Uint8Array[] = [];
  const end = () => {
    ended = true;
    model.off("msg:custom", receive);
  };
  /** Reports the end, so that the connection opens another tunnel. */
  const fail = () => {
    if (ended) return;
    end();
    listener.closed(null);
  };
  const receive = (content: unknown, buffers: unknown) => {
    const message = content as TunnelMessage;
    if (message.channel !== channel || ended) return;
    if (message.ebus === "frames" && message.n === (received += 1)) {
      for (const view of buffers as readonly DataView[]) {
        // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- a message may end the tunnel
        if (!ended) listener.message(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
      }
    } else if (message.ebus === "frames" || message.ebus === "closed") {
      send("close");
      fail();
    }
  };
  /** Returns whether the widget has carried the message; after a kernel restart its comm may be gone. */
  const send = (ebus: string, buffers?: ArrayBufferView[]): boolean => {
    const here = [...carriers].filter((carrier) => carrier[0] === model);
    if (here.length === 0) return false;
    try {
      model.send({ ebus, channel, client: kernel, n: sent }, undefined, buffers);
      return true;
    } catch {
      for (const carrier of here) carriers.delete(carrier);
      return false;
    }
  };
  model.on("msg:custom", receive);
  const carried = send("open");
  queueMicrotask(() => {
    if (!carried) fail();
    else if (!ended) listener.opened();
  });
  return {
    send: (bytes) => {
      if (waiting.push(bytes) > 1) return;
      queueMicrotask(() => {
        const buffers = waiting;
        waiting = [];
        sent += 1;
        if (!ended && !send("frames", buffers)) fail();
      });
    },
    close: () => {
      if (!ended) send("close");
      end();
    },
  };
}
