/**
 * A bus as a trait of any anywidget.
 *
 * The Python `Bus` is a widget of its own. Its page side returns the bus, opened on the page's connection, as its `exports`:
 * `(await host.getWidget(model.get("bus"))).exports`.
 */
import type { Bus } from "../client/index.js";
import { busOf, clientOf, type Props } from "./model.js";

/** Returns the bus that the model names; it closes with the model. */
export function attachBus(props: Props): Bus {
  return clientOf(props).bus(...busOf(props.model));
}
