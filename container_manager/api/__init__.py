"""The interface: JSON-RPC 2.0 over HTTP, probes and metrics.

`envelope` reads a body, `dispatch` answers it, `calls` says what a call is, `containers`,
`networks` and `volumes` are the calls, `params`, `views` and `resources` what they take and give,
`access` who may call, `app` the HTTP around it all.
"""
