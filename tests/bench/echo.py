"""The other side of the Create bench: aiohttp and uvloop that parse a body and send it back.

It is what the daemon's door costs with nothing behind it: no call, no queue, no disk.

    python -m tests.bench.echo --port 8081
"""

from __future__ import annotations

import argparse
import asyncio
import gc

import orjson
import uvloop
from aiohttp import web

LISTENING = "listening"
"""What it prints once it can be called."""


async def _echo(request: web.Request) -> web.Response:
    document = orjson.loads(await request.read())
    return web.Response(body=orjson.dumps(document), content_type="application/json")


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_post("/jrpc", _echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    # The same care that the daemon takes, so that the comparison is not with a careless server.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    print(LISTENING, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve until ended by a signal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.port))


if __name__ == "__main__":
    main()
