/** A second way to connect, for pages that cannot use the first. */
import type { Connect, Listener, Transport, Way } from "./base.js";

/** After so many failures in a row, a page goes the second way. */
const FAILURES = 3;
/** How often a page that goes the second way tries the first one, in milliseconds. */
const PROBE = 30_000;

/** What a page has seen of its first way. All ways of one page share it. */
interface History {
  worked: boolean;
  failures: number;
}

/** The histories of the first ways of this page; all copies of this module share them. */
const HISTORIES: unique symbol = Symbol.for("ebus.ways.v1");

function historyOf(first: Connect): History {
  const page = globalThis as { [HISTORIES]?: WeakMap<Connect, History> | undefined };
  const histories = (page[HISTORIES] ??= new WeakMap<Connect, History>());
  const history = histories.get(first) ?? { worked: false, failures: 0 };
  histories.set(first, history);
  return history;
}

/**
 * Connects by the page's first way, or by `second`. As long as the first one has never worked, a page goes by `second` where
 * the server has no such endpoint, or after repeated failures (a transport that is closed before it has opened is one).
 * Meanwhile it goes on trying the first way.
 */
export function orElse(second: Connect): Way {
  return (first) => {
    if (!first) return second;
    const history = historyOf(first);
    return (listener) => {
      if (!history.worked) {
        if (history.failures >= FAILURES) return bySecond(first, second, history, listener);
        try {
          return byFirst(first, history, listener);
        } catch {
          history.failures = FAILURES; // the page may not even try
          return bySecond(first, second, history, listener);
        }
      }
      return first(listener);
    };
  };
}

function byFirst(first: Connect, history: History, listener: Listener): Transport {
  let counted = false;
  const failed = () => {
    if (!counted) history.failures += 1;
    counted = true;
  };
  const transport = first({
    opened: () => {
      counted = history.worked = true;
      listener.opened();
    },
    message: (bytes) => listener.message(bytes),
    closed: (error) => {
      failed();
      if (error?.details.reason === "no_endpoint") history.failures = FAILURES;
      listener.closed(error);
    },
  });
  return {
    send: (bytes) => transport.send(bytes),
    close: () => {
      failed();
      transport.close();
    },
  };
}

function bySecond(first: Connect, second: Connect, history: History, listener: Listener): Transport {
  let probe: Transport | null = null;
  const stop = () => {
    clearInterval(timer);
    probe?.close();
  };
  const timer = setInterval(() => {
    probe?.close();
    try {
      probe = first({
        opened: () => {
          history.worked = true;
          stop();
          transport.close();
          listener.closed(null);
        },
        message: () => undefined,
        closed: () => undefined,
      });
    } catch {
      probe = null;
    }
  }, PROBE);
  let transport: Transport;
  try {
    transport = second({
      opened: () => listener.opened(),
      message: (bytes) => listener.message(bytes),
      closed: (error) => {
        stop();
        listener.closed(error);
      },
    });
  } catch (error) {
    stop();
    throw error;
  }
  return {
    send: (bytes) => transport.send(bytes),
    close: () => {
      stop();
      transport.close();
    },
  };
}
