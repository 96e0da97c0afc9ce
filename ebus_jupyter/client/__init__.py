"""Clients: the objects that programs hold, and the connection behind them.

Each module imports only those to its right::

    discover → client → open, state → bus → ack, callback, presence → stream → connection
    connection → topic → kernel_filter, loop_thread, waiting

`connection` carries bytes on an event loop of its own thread, so that a busy cell delays nothing, and performs what
`core.client.session` decides. `client`, `bus`, `stream`, `state` and `ack` are what a program holds. `discover` finds the
process's broker; `embedded` is the broker of a process that has none.
"""
