"""The running broker: `host` performs the effects of `core.broker` on an asyncio event loop.

The same host runs in the Jupyter server, in a lone kernel, and in a hub's service.
"""
