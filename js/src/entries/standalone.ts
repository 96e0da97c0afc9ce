/**
 * The client and the entry points in one module, for kernels whose broker no server hosts: the page has nothing to import
 * from. It is an anywidget module by itself, and exports the entry points for a loader that requests it from the kernel.
 */
import type { Props } from "../widgets/model.js";
import * as entries from "./attach.js";

export * from "./attach.js";

export default {
  initialize(props: Props): object | undefined {
    const entry = entries[props.model.get("_entry") as "attachBus" | "attachShare"] as ((props: Props) => object) | undefined;
    return entry?.(props);
  },
  render: entries.attachFace,
};
