/**
 * A bus as a trait of anyone's anywidget: the Python side's `Bus` is a widget of its own, and what this entry returns is
 * its `exports`. So `(await host.getWidget(model.get("bus"))).exports` is the bus, opened on the page's one connection.
 */
import type { Bus } from "./bus.js";
import { busOf, clientOf, type Props } from "./widget.js";

/** The `Bus` that the model names; it closes with the model. */
export function attachBus(props: Props): Bus {
  return clientOf(props).bus(...busOf(props.model));
}
