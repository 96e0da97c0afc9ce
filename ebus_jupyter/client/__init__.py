"""What programs hold: a client of one broker, its buses, and what they are made of.

::

    client → open → bus → callback, presence → stream → connection → topic → waiting
             state → bus                ack

`connection` carries bytes on an event loop of its own thread, so that a busy cell delays nothing, and performs what
`core.client.session` decides. `client`, `bus`, `stream`, `state` and `ack` are what a program holds. `discover` finds the
process's broker; `embedded` is the broker of a process that has none.
"""
