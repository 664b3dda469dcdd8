"""HTTP: the routes, their limits, and the answers that are not JSON-RPC's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from container_manager.api.access import Access, Denied
from container_manager.api.dispatch import Dispatcher
from container_manager.api.metrics import Metrics

MAX_BODY = 1024 * 1024
BODY_TIMEOUT = 30.0
"""Seconds in which a body has to come, so that nobody holds connections by sending slowly."""
Readiness = Callable[[], dict[str, Any]]
"""What `/readyz` answers; its `ready` decides between 200 and 503."""


class App:
    """The routes of one daemon."""

    def __init__(
        self, dispatcher: Dispatcher, access: Access, metrics: Metrics, readiness: Readiness
    ) -> None:
        """Answer calls by `dispatcher`, of those whom `access` admits."""
        self._dispatcher = dispatcher
        self._access = access
        self._metrics = metrics
        self._readiness = readiness

    def runner(self) -> web.AppRunner:
        """The application, ready to be given an address."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/jrpc", self._jrpc)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        # No access log: it costs a third of the throughput, and /metrics counts the calls.
        # Bodies are never unpacked: there is no bomb to be made of them.
        _SERVER_LOG.addFilter(_worth_logging)
        return web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
            auto_decompress=False,
            logger=_SERVER_LOG,
        )

    async def _jrpc(self, request: web.Request) -> web.Response:
        headers = request.headers
        try:
            self._access.check(request.remote, headers)
        except Denied as denied:
            return _denied(denied)
        content_type = headers.get("Content-Type", "")
        if content_type != "application/json" and request.content_type != "application/json":
            return _error(
                415,
                "unsupported_media_type",
                'The body has to be JSON and to say so: -H "Content-Type: application/json".',
            )
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            return _error(
                415, "unsupported_encoding", "Compressed bodies are not taken; send it plain."
            )
        if (request.content_length or 0) > MAX_BODY:
            return _too_large()
        try:
            body = await _body(request)
        except web.HTTPRequestEntityTooLarge:
            return _too_large()
        except TimeoutError:
            return _error(
                408, "request_timeout", f"The body did not come within {BODY_TIMEOUT:g} s."
            )
        except (HttpProcessingError, ConnectionError):
            # The caller's connection broke, or what came over it is no HTTP.
            return _error(400, "bad_request", "The body did not come whole.")
        answer = await self._dispatcher.handle(body, None)
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, headers=_JSON)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        try:
            self._access.check(request.remote, request.headers)
        except Denied as denied:
            return _denied(denied)
        headers = {"Content-Type": "text/plain; version=1.0.0; charset=utf-8"}
        return web.Response(body=self._metrics.text(), headers=headers)

    async def _livez(self, request: web.Request) -> web.Response:
        del request  # whoever asks: it tells nothing but that the daemon runs
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        state = self._readiness()
        status = 200 if state["ready"] else 503
        try:
            self._access.check(request.remote, request.headers)
        except Denied:
            # A probe from elsewhere learns what it has to know, and no more.
            state = {"ready": state["ready"]}
        return web.Response(status=status, body=orjson.dumps(state) + b"\n", headers=_JSON)


_SERVER_LOG = logging.getLogger("container_manager.http")


async def _body(request: web.Request) -> bytes:
    if request.content.is_eof():  # it came with its head, as nearly all do
        return await request.read()
    async with asyncio.timeout(BODY_TIMEOUT):
        return await request.read()


def _worth_logging(record: logging.LogRecord) -> bool:
    """Whether it is our fault: anybody can send what is no HTTP, and hang up."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)


_JSON = {"Content-Type": "application/json"}


def _denied(denied: Denied) -> web.Response:
    response = _error(denied.status, denied.name, denied.message)
    if denied.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="container-manager"'
    return response


def _too_large() -> web.Response:
    return _error(413, "body_too_large", f"A body holds at most {MAX_BODY} bytes.")


def _error(status: int, name: str, message: str) -> web.Response:
    body = orjson.dumps({"error": {"name": name, "message": message}}) + b"\n"
    return web.Response(status=status, body=body, headers=_JSON)
