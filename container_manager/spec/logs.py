"""Where a container's output goes (https://docs.docker.com/engine/logging/configure/)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from container_manager.spec.model import Model, Text

Driver = Literal["json-file", "local", "journald", "none"]

_SIZE = r"\d{1,15}(?:\.\d{1,3})?[kmgtKMGT]?[iI]?[bB]?"
_BOOLEAN = "true|false"
_ANY = r"[^\0]{0,1024}"
# What each option's value looks like. The engine has them from its drivers' own lists.
_ROTATION = {"max-size": _SIZE, "max-file": "[1-9][0-9]{0,3}", "compress": _BOOLEAN}
_ATTRIBUTES = dict.fromkeys(("labels", "labels-regex", "env", "env-regex", "tag"), _ANY)
_DELIVERY = {"mode": "blocking|non-blocking", "max-buffer-size": _SIZE}
_OPTIONS: dict[str, dict[str, str]] = {
    "json-file": {**_ROTATION, **_ATTRIBUTES, **_DELIVERY},
    "local": {**_ROTATION, **_DELIVERY},
    "journald": {**_ATTRIBUTES, **_DELIVERY},
    "none": {},
}


class LogDriver(Model):
    """The engine's log driver, as `docker run --log-driver` and `--log-opt` have it."""

    name: Driver = Field(description="The driver.")
    options: dict[str, Text] = Field(
        default_factory=dict, description='The driver\'s options: {"max-size": "10m"}.'
    )

    @model_validator(mode="after")
    def _options_of_its_own(self) -> Self:
        there_are = _OPTIONS[self.name]
        for option, value in self.options.items():
            if option not in there_are:
                known = ", ".join(sorted(there_are)) or "none"
                raise ValueError(f"the options of {self.name} that can be set: {known}")
            if not re.fullmatch(there_are[option], value, re.ASCII | re.DOTALL):
                raise ValueError(f"{option} does not take this value")
        if "max-buffer-size" in self.options and self.options.get("mode") != "non-blocking":
            raise ValueError('max-buffer-size goes with "mode": "non-blocking"')
        return self


def _form(value: Any) -> Any:
    name = value.get("name") if isinstance(value, dict) else value
    if isinstance(name, str) and name not in get_args(Driver):
        raise ValueError(f"the log drivers that can be asked for: {', '.join(get_args(Driver))}")
    return {"name": value} if isinstance(value, str) else value


LogForm = Annotated[LogDriver, BeforeValidator(_form, json_schema_input_type=Driver | LogDriver)]
