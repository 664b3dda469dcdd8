"""The container's first process: as whom and where it runs, and how it is ended."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from container_manager.spec.model import Text, listed

MAX_ARGUMENTS = 4096

_USER = re.compile(r"[^\s:/\0]{1,64}(?::[^\s:/\0]{1,64})?")
_HIGHEST_SIGNAL = 64
_SIGNALS = {
    *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT"),
    *("KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM"),
    *("TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ"),
    *("RTMIN", *(f"RTMIN+{n}" for n in range(1, 16))),
    *("RTMAX", *(f"RTMAX-{n}" for n in range(1, 15))),
}


def _entrypoint(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    # As Docker's own client has it, and Compose: nothing is "not the image's either".
    return listed(value) or ("",)


def _user(value: str) -> str:
    if not _USER.fullmatch(value):
        raise ValueError('is no user; write a name or a number: "user", "1000" or "1000:1000"')
    return value


def _working_dir(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError('a working directory is absolute: "/app"')
    return value


def _signal(value: Any) -> str:
    if type(value) is int or (isinstance(value, str) and re.fullmatch("[0-9]{1,2}", value)):
        if not 1 <= int(value) <= _HIGHEST_SIGNAL:
            raise ValueError(f"a signal's number is from 1 to {_HIGHEST_SIGNAL}")
        return str(int(value))
    name = value.upper().removeprefix("SIG") if isinstance(value, str) else ""
    if name not in _SIGNALS:
        raise ValueError('is no signal of Linux; write "SIGTERM" or a number')
    return f"SIG{name}"


Arguments = Annotated[list[Text], Field(max_length=MAX_ARGUMENTS)]
Entrypoint = Annotated[
    tuple[Text, ...],
    Field(max_length=MAX_ARGUMENTS),
    BeforeValidator(_entrypoint, json_schema_input_type=str | list[str]),
]
User = Annotated[str, AfterValidator(_user)]
WorkingDir = Annotated[Text, Field(max_length=4096), AfterValidator(_working_dir)]
StopSignal = Annotated[str, BeforeValidator(_signal, json_schema_input_type=str | int)]
StopTimeout = Annotated[int, Field(ge=0, le=3600)]
