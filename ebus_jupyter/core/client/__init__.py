"""The client's half of the protocol. `session` is the place to begin; `ebus_jupyter.client` runs it on a transport."""
