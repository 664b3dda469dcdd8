"""The daemon's log: one line each for programs, and no secrets for anybody."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.unit.builders import CANARY

# A call that breaks while it holds a secret. The secret is put together here, so that no line of
# this program, which a traceback may show, has it.
BREAK = f"""
import structlog
from container_manager.log import log_to_stderr

def call(env):
    raise RuntimeError("out of luck")

log_to_stderr("info")
try:
    call({{"PASSWORD": "-".join({CANARY.split("-")!r})}})
except RuntimeError:
    structlog.get_logger().exception("call broke", job_id="j1")
"""


def at_a_terminal(command: list[str]) -> str:
    """What a person sees on stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs) as process, os.fdopen(ours, "rb") as screen:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(screen.fileno(), 4096):
                seen += part
        except OSError:  # the other side has ended
            pass
        assert process.wait(30) == 0
    return seen.decode()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_broken_call_is_logged_without_what_it_was_called_with(terminal: bool) -> None:
    command = [sys.executable, "-c", BREAK]
    if terminal:
        text = at_a_terminal(command)
    else:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        text = done.stderr
    assert "call broke" in text
    assert "out of luck" in text
    assert CANARY not in text


def test_the_log_for_programs_is_one_line_of_json_each() -> None:
    command = [sys.executable, "-c", BREAK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["job_id"]) == ("call broke", "error", "j1")
    assert "RuntimeError: out of luck" in entry["exception"]
