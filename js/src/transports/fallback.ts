/** A second way to connect, for pages that cannot use the first. */
import type { Connect, Transport } from "./base.js";

/** Connects by `first`. As long as `first` has never worked, each failure is followed by an attempt with `second`. */
export function orElse(first: Connect, second: Connect): Connect {
  let worked = false;
  return (listener) => {
    let current: Transport | null = null;
    let closed = false;
    current = first({
      opened: () => {
        worked = true;
        listener.opened();
      },
      message: (bytes) => listener.message(bytes),
      closed: (error) => {
        if (worked || closed || error?.temporary === false) return listener.closed(error);
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
        closed = true;
        current?.close();
      },
    };
  };
}
