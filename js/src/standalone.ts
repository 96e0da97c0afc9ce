/**
 * The client and the entries in one module that is a widget's own: for kernels whose broker no server hosts, where there is
 * nothing to import from. It also has the entries by name, for a stub that asks its kernel for it.
 */
import * as entries from "./attach.js";
import { attachFace } from "./face.js";
import type { Props } from "./widget.js";

export * from "./attach.js";

export default {
  initialize(props: Props): object | undefined {
    const entry = entries[props.model.get("_entry") as "attachBus" | "attachShare"] as ((props: Props) => object) | undefined;
    return entry?.(props);
  },
  render: attachFace,
};
