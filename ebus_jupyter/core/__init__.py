"""The bus, as pure state machines: no await, no clock, no socket, no randomness.

Start reading at `log` (what is remembered), then `bus` (one bus), `broker` (all of them: frames in, effects out)
and `link` (the client's half). `frames` is the wire. Time and ids are always arguments, so that every law of the
README can be tested with plain function calls.
"""
