/** What widgets of the Python side do in a page; `_entry` names the function. Beside the client, not in it: others who
 * import the client need none of this. */
export { attachFace } from "./face.js";
export { attachBus } from "./handle.js";
export { attachShare } from "./share.js";
