"""The OpenRPC document of the interface, made from its models (https://spec.open-rpc.org)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from container_manager import __version__, errors
from container_manager.api.calls import Call
from container_manager.api.params import NoParams

_REFERENCE = "#/components/schemas/{model}"


def discovery(calls: Sequence[Call[Any]]) -> Call[NoParams]:
    """`rpc.discover`, by which the interface of these calls describes itself."""
    made: dict[str, Any] = {}

    async def discover(params: NoParams) -> dict[str, Any]:
        """This document."""
        del params
        if not made:  # when it is first asked for: most daemons never are
            made.update(document([*calls, itself]))
        return made

    itself = Call("rpc.discover", NoParams, dict[str, Any], discover)
    return itself


def document(calls: Iterable[Call[Any]]) -> dict[str, Any]:
    """The document that describes these calls."""
    schemas: dict[str, Any] = {}
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "container-manager",
            "version": __version__,
            "description": "A masterless job queue for containers.",
        },
        "methods": [_method(call, schemas) for call in calls],
        "components": {"schemas": schemas},
    }


def _method(call: Call[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    params = _schema(call.params, schemas)
    required = set(params.get("required", ()))
    return {
        "name": call.name,
        "summary": (inspect.getdoc(call.does) or "").partition("\n")[0],
        "paramStructure": "by-name",
        "params": [
            {
                "name": name,
                "description": schema.get("description", ""),
                "required": name in required,
                "schema": schema,
            }
            for name, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": _schema(call.gives, schemas)},
        "errors": [
            {"code": error.code, "message": inspect.getdoc(error) or "", "data": error.name}
            for error in _application_errors()
        ],
    }


def _schema(type_: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(type_).json_schema(ref_template=_REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    return schema


def _application_errors() -> list[type[errors.ApplicationError]]:
    kinds = vars(errors).values()
    return [
        kind
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, errors.ApplicationError)
        and kind is not errors.ApplicationError
    ]
