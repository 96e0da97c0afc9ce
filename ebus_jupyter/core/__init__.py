"""The buses as pure state machines: no await, no clock, no socket, no randomness.

Time, ids and secrets are arguments, and effects and events are results, so every law of the project is tested with plain
function calls. Three rooms, in reading order:

`core.protocol`: the language that both sides speak
    `message` has the nouns (participant, message, spec) and `address` the names of buses. `log` explains size, lag and
    resume; a `position` is a place in it. `frames` is the wire format. `codec`, `validation` and `typescript` are three
    uses of one type, and `limits` lists every bound.

`core.broker`: the broker's half
    `bus` is one bus: admission, log, fan-out. `state` is all of them: frames in, `effects` out.

`core.client`: the client's half
    `session` survives every reconnect: calls in, frames out; frames in, `events` out. `channel` is one bus as a client
    knows it, `reader` a position in it, and `replica` a copy of a shared state.

`core.protocol` imports only `ebus_jupyter.errors`. The two halves import `core.protocol`, and do not know each other.
"""
