"""A call of the interface, and the words in which it refuses params that do not fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jsonrpcserver import Error
from jsonrpcserver.result import Result
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from container_manager.api.dispatch import Method, guarded
from container_manager.errors import PolicyDenied
from container_manager.spec import Model, check_policy

P = TypeVar("P", bound=Model)


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """One call of the interface: its name, what it takes and gives, and what it does."""

    name: str
    params: type[P]
    gives: Any
    """The type of the result, for the document that describes the interface."""
    does: Callable[[P], Awaitable[Any]]
    policy: Callable[[dict[str, Any]], None] = check_policy
    """Refuses by `PolicyDenied` what nobody may ask for."""

    def method(self) -> Method:
        """The call as the dispatcher calls it."""
        run = guarded(self.does)
        model = self.params

        async def method(context: Any, /, *args: Any, **kwargs: Any) -> Result:
            del context
            fields = args[0] if len(args) == 1 and not kwargs else kwargs
            if type(fields) is not dict or (args and fields is kwargs):
                return _invalid("params takes one object: [{…}] or {…}", [])
            try:
                params = model.model_validate(fields)
            except ValidationError as error:
                return _refusal(error, fields, self.policy)
            return await run(params)

        return method


def _refusal(
    error: ValidationError, fields: dict[str, Any], policy: Callable[[dict[str, Any]], None]
) -> Result:
    """The answer to params that do not fit: what is denied first, then what is wrong, no values."""
    try:
        policy(fields)
    except PolicyDenied as denied:
        return Error(denied.code, denied.message, denied.data)
    errors = [
        {"loc": list(one["loc"]), "msg": _words(one), "type": one["type"]}
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    # In words for the person at the terminal; programs read the list.
    place, what = (
        ".".join(map(str, error.errors(include_input=False)[0]["loc"])),
        str(errors[0]["msg"]),
    )
    return _invalid(f"{place}: {what}" if place else what, errors)


def _words(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; rpc.discover describes those that there are"
    return error["msg"].removeprefix("Value error, ")


def _invalid(what: str, errors: list[dict[str, Any]]) -> Result:
    return Error(-32602, f"Invalid params: {what}", {"name": "invalid_params", "errors": errors})
