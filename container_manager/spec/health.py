"""The health check: how the engine finds out whether the container does its work."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from container_manager.spec.model import MAX_SECONDS, Model, Text, listed

_Test = Annotated[tuple[Text, ...], Field(max_length=4096)]
# The engine takes nothing shorter than a millisecond.
_Period = Annotated[float, Field(ge=0.001, le=MAX_SECONDS, allow_inf_nan=False)]


def _test(value: Any) -> Any:
    if isinstance(value, str):
        return ("CMD-SHELL", value)
    test = listed(value)
    return test if test and test[0] in ("CMD", "CMD-SHELL", "NONE") else ("CMD", *test)


def _whole(test: tuple[str, ...]) -> tuple[str, ...]:
    kind, rest = test[0], test[1:]
    if kind == "NONE":
        raise ValueError('"NONE" stands alone')
    if not (rest and rest[0]) or (kind == "CMD-SHELL" and len(rest) != 1):
        raise ValueError('write a command for the shell, or ["CMD", "program", "argument"]')
    return test


class Healthcheck(Model):
    """What is left out is as the image has it, as with the `--health-…` flags of `docker run`."""

    test: (
        Annotated[
            _Test,
            BeforeValidator(_test, json_schema_input_type=str | list[str]),
            AfterValidator(_whole),
        ]
        | None
    ) = Field(
        default=None,
        description='The test: a text for the shell, or a list, with or without "CMD" or '
        '"CMD-SHELL" before it. It is well when it exits with 0. "NONE" is disable.',
    )
    interval: _Period | None = Field(default=None, description="Seconds between two tests.")
    timeout: _Period | None = Field(default=None, description="Seconds that a test may take.")
    start_period: _Period | None = Field(
        default=None, description="Seconds after the start in which failed tests do not count."
    )
    retries: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Failed tests in a row that make it unhealthy."
    )
    disable: bool = Field(default=False, description="No health check, not the image's either.")

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_disable(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("test") in (["NONE"], ("NONE",)):
            return {**{key: said for key, said in value.items() if key != "test"}, "disable": True}
        return value

    @model_validator(mode="after")
    def _disabled_or_described(self) -> Self:
        described = (self.test, self.interval, self.timeout, self.start_period, self.retries)
        if self.disable and any(one is not None for one in described):
            raise ValueError("a health check is either disabled or described")
        return self
