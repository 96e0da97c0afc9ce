/**
 * The comm transport: frames travel through the kernel, for pages that cannot reach the broker themselves.
 *
 * Frames are the buffers of a widget's custom messages, in a tunnel whose id the page generates (`CommTunnel` is its Python
 * side). Any widget of the kernel can carry the tunnel. When that widget is closed, the connection opens another tunnel over
 * another widget.
 *
 * A kernel handles comm messages between cells only, so frames from the page wait while a cell runs. A WebSocket is
 * preferred wherever there is one.
 */
import { onAbort } from "../core/abort.js";
import { ConnectionLost } from "../core/errors.js";
import type { Connect, Listener, Transport } from "./base.js";

/** The part of a widget's model that carries a tunnel. */
export interface CommModel {
  on(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  off(event: string, listener: (content?: unknown, buffers?: unknown) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBufferView[]): void;
}

interface TunnelMessage {
  readonly ebus?: string;
  readonly channel?: string;
}

/** The live widgets of each kernel on this page; all copies of this module share them. */
const COMMS: unique symbol = Symbol.for("ebus.comms.v1");

function modelsOf(kernel: string): Set<CommModel> {
  const page = globalThis as { [COMMS]?: Map<string, Set<CommModel>> | undefined };
  page[COMMS] ??= new Map<string, Set<CommModel>>();
  const comms = page[COMMS];
  let models = comms.get(kernel);
  if (!models) comms.set(kernel, (models = new Set()));
  return models;
}

/**
 * Connects through the kernel whose client is named `kernel`.
 *
 * @param model - A widget of that kernel; it can carry tunnels until `signal` aborts.
 */
export function viaKernel(kernel: string, { model, signal }: { readonly model: CommModel; readonly signal: AbortSignal }): Connect {
  const models = modelsOf(kernel);
  models.add(model);
  onAbort(signal, () => models.delete(model));
  return (listener) => openTunnel(kernel, models, listener);
}

function openTunnel(kernel: string, models: Set<CommModel>, listener: Listener): Transport {
  const model = [...models].at(-1);
  if (!model) throw new ConnectionLost("no widget of this kernel is left on the page to carry the bus.");
  const channel = crypto.randomUUID();
  let ended = false;
  const end = () => {
    ended = true;
    model.off("msg:custom", received);
  };
  /** Reports the end, so that the connection opens another tunnel. */
  const fail = () => {
    if (ended) return;
    end();
    listener.closed(null);
  };
  const received = (content: unknown, buffers: unknown) => {
    const message = content as TunnelMessage;
    if (message.channel !== channel || ended) return;
    if (message.ebus === "frames") {
      for (const view of buffers as readonly DataView[]) listener.message(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    } else if (message.ebus === "closed") {
      fail();
    }
  };
  /** Returns whether the widget has carried the message; after a kernel restart its comm may be gone. */
  const send = (ebus: string, buffers?: readonly ArrayBufferView[]): boolean => {
    try {
      if (models.has(model)) {
        model.send({ ebus, channel, client: kernel }, undefined, buffers ? [...buffers] : undefined);
        return true;
      }
    } catch {
      models.delete(model);
    }
    return false;
  };
  model.on("msg:custom", received);
  const carried = send("open");
  queueMicrotask(() => {
    if (!carried) fail();
    else if (!ended) listener.opened();
  });
  return {
    send: (bytes) => {
      if (!ended && !send("frames", [bytes])) fail();
    },
    close: () => {
      if (!ended) send("close");
      end();
    },
  };
}
