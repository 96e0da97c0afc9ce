"""Faults: what becomes of the laws when everything fails that can.

``make faults`` lets faults happen to a real Jupyter server and its participants, for a minute or for as long as it is told.
`stage` has the server, the participants and their lines; `faults` what happens to them; `proxy`, `server` and
`jupyter_process` make it happen. Every participant records what it wrote, was told and received (`check.records`).
`check` shares no code with the product, and holds the records against the laws.
"""
