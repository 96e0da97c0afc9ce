/**
 * The entry points of the package's widgets: the trait `_entry` names the function. They are a module of their own, because
 * programs that import the client need none of them.
 *
 * The loader and this module may be of different versions, so the exported names are fixed.
 */
export { attachBus } from "../widgets/handle.js";
export { attachShare } from "../widgets/sharing/share.js";
export { attachView as attachFace } from "../widgets/view.js";
