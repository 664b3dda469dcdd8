"""The cluster: which nodes there are, whom of them this one trusts, and the links between them.

`secret` is what the members share, `certificates` what each makes of it, `frames` the form of what
goes over a link. `wire` is one connection: frames over TLS, with bounded buffers. `hello` is what
two nodes say of themselves at first, `link` that conversation and all that follows it, `listener`
the side that is called. `errors` says why there is no link. Neither jobs nor the store are known
here.
"""
