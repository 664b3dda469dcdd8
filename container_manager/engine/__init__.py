"""The container engine: where it is, what is asked of it, and what it tells.

`endpoint` finds the engine, `document` compiles a spec to what is asked for, `docker` makes the
calls, `networks` and `volumes` those about what containers share, `ownership` tells whose that is,
`watcher` keeps the connection and passes on what happens there. aiodocker is known to this room
alone.
"""
