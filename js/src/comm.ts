/**
 * Frames by way of the kernel, where the page cannot reach the broker itself: they ride as buffers of a widget's custom
 * messages, on a channel that this page makes up (the Python side is `widgets/relay.py`). Any widget of that kernel will
 * do; when the one in use is closed, the connection is made again over another.
 *
 * What the page sends waits while the kernel runs a cell. That is how comms are: a WebSocket is preferred where there is one.
 */
import { ConnectionLost } from "./errors.js";
import type { Connect, Listener, Transport } from "./transport.js";
import { onAbort } from "./util.js";
import type { HostModel, Props } from "./widget.js";

interface Said {
  readonly ebus?: string;
  readonly channel?: string;
}

/** The widgets of each kernel that are alive on this page, wherever this module was loaded. */
const COMMS: unique symbol = Symbol.for("ebus.comms.v1");

function modelsOf(kernel: string): Set<HostModel> {
  const page = globalThis as { [COMMS]?: Map<string, Set<HostModel>> | undefined };
  page[COMMS] ??= new Map<string, Set<HostModel>>();
  const comms = page[COMMS];
  let models = comms.get(kernel);
  if (!models) comms.set(kernel, (models = new Set()));
  return models;
}

/** Connects by way of the kernel that `kernel` names. `props` is one widget of it, which is used as long as it lives. */
export function viaKernel(kernel: string, { model, signal }: Props): Connect {
  const models = modelsOf(kernel);
  models.add(model);
  onAbort(signal, () => models.delete(model));
  return (listener) => open(kernel, models, listener);
}

function open(kernel: string, models: Set<HostModel>, listener: Listener): Transport {
  const model = [...models].at(-1);
  if (!model) throw new ConnectionLost("no widget of this kernel is left on the page to carry the bus.");
  const channel = crypto.randomUUID();
  let ended = false;
  const end = () => {
    ended = true;
    model.off("msg:custom", heard);
  };
  /** The connection is made again, over another widget. */
  const fail = () => {
    if (ended) return;
    end();
    listener.closed(null);
  };
  const heard = (content: unknown, buffers: unknown) => {
    const said = content as Said;
    if (said.channel !== channel || ended) return;
    if (said.ebus === "frames") {
      for (const view of buffers as readonly DataView[]) listener.message(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    } else if (said.ebus === "closed") {
      fail();
    }
  };
  /** Returns whether the widget could carry it; one whose comm is gone, with the kernel's last life, can't. */
  const say = (ebus: string, buffers?: readonly ArrayBufferView[]): boolean => {
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
  model.on("msg:custom", heard);
  const carried = say("open");
  queueMicrotask(() => {
    if (!carried) fail();
    else if (!ended) listener.opened();
  });
  return {
    send: (bytes) => {
      if (!ended && !say("frames", [bytes])) fail();
    },
    close: () => {
      if (!ended) say("close");
      end();
    },
  };
}
