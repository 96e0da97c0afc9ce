"""A participant in Python: `core.channel` on a transport, on a thread of its own, so that a busy cell delays nothing.

`client` connects and reconnects; `bus`, `stream`, `ack` and `state` are what a program holds; `discover` finds the broker;
`embedded` is the broker of a process that has none.
"""
