"""The broker at work: `host` performs what `core.broker` decides, on an asyncio loop.

The same host runs in the Jupyter server, in a lone kernel, and in a hub's service.
"""
