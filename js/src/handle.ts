/**
 * A bus as a trait of anyone's anywidget: the Python side's `Bus` is a widget of its own, and what this entry returns is
 * its `exports`. So `(await host.getWidget(model.get("bus"))).exports` is the bus, opened on the page's one connection.
 */
import type { Bus } from "./bus.js";
import { connect } from "./client.js";
import { busOf, type Props } from "./widget.js";

/** The `Bus` that the model names; it closes with the model. */
export function attachBus({ model, signal }: Props): Bus {
  return connect(undefined, { signal }).bus(...busOf(model));
}
