"""The first process: its command, its user, its health, its end and its output."""

from __future__ import annotations

from typing import Any

import pytest

from container_manager.spec.health import Healthcheck
from container_manager.spec.logs import LogDriver
from container_manager.spec.restart import RestartPolicy
from tests.unit.spec_forms import accepted, places, refused, why


def test_an_entrypoint_is_a_program_or_a_list() -> None:
    assert accepted().entrypoint is None
    assert accepted(entrypoint="/run me").entrypoint == ("/run me",)
    assert accepted(entrypoint=["sh", "-c", ""]).entrypoint == ("sh", "-c", "")
    for none_at_all in ("", [], [""]):
        assert accepted(entrypoint=none_at_all).entrypoint == ("",)
    for wrong in (1, {}, ["a\0"], "a\0", [1], ["a"] * 4097):
        assert places(refused(entrypoint=wrong))[0][0] == "entrypoint"


def test_users_and_directories_are_as_docker_has_them() -> None:
    for user in ("root", "0", "1000:1000", "www-data", "name.sur_name:staff", "svc$"):
        assert accepted(user=user).user == user
    for user in ("", ":", "a:", ":a", "a:b:c", "a b", "a/b", "a\n", "x" * 65, 0):
        assert places(refused(user=user)) == [("user",)]
    for path in ("/", "/app", "/a b/../c"):
        assert accepted(working_dir=path).working_dir == path
    for path in ("", "app", "./app", "~", "/a\0", "/" + "x" * 4096):
        assert places(refused(working_dir=path)) == [("working_dir",)]


@pytest.mark.parametrize(
    ("form", "signal"),
    [
        *(("SIGTERM", "SIGTERM"), ("term", "SIGTERM"), ("SigInt", "SIGINT"), ("USR1", "SIGUSR1")),
        *((15, "15"), ("15", "15"), ("09", "9"), (64, "64"), ("SIGRTMIN+3", "SIGRTMIN+3")),
        *(("rtmax-14", "SIGRTMAX-14"), ("RTMIN", "SIGRTMIN")),
    ],
)
def test_signals_are_known_by_name_or_number(form: Any, signal: str) -> None:
    assert accepted(stop_signal=form).stop_signal == signal


@pytest.mark.parametrize(
    "form",
    ["", "SIG", "SIGNOPE", "SIGSIGTERM", 0, 65, -1, "0", "-9", "9.0", 9.0, True, "RTMIN+16", []],
)
def test_other_signals_are_refused(form: Any) -> None:
    assert places(refused(stop_signal=form)) == [("stop_signal",)]


@pytest.mark.parametrize(
    ("form", "policy"),
    [
        ("no", RestartPolicy(name="no")),
        ("always", RestartPolicy(name="always")),
        ("unless-stopped", RestartPolicy(name="unless-stopped")),
        ("on-failure", RestartPolicy(name="on-failure")),
        ("on-failure:3", RestartPolicy(name="on-failure", maximum_retry=3)),
        (
            {"name": "on-failure", "maximum_retry": 3},
            RestartPolicy(name="on-failure", maximum_retry=3),
        ),
        ({"name": "always", "maximum_retry": 0}, RestartPolicy(name="always")),
    ],
)
def test_restart_policies_are_taken_in_both_forms(form: Any, policy: RestartPolicy) -> None:
    assert accepted(restart_policy=form).restart_policy == policy


@pytest.mark.parametrize(
    "form",
    [
        *(
            "",
            "never",
            "always:3",
            "on-failure:",
            "on-failure:-1",
            "on-failure:x",
            "on-failure:3:4",
        ),
        *("on-failure:" + "9" * 10, {"name": "always", "maximum_retry": 3}, {"maximum_retry": 3}),
        *({"name": "on-failure", "maximum_retry": -1}, {"Name": "always"}, 3, ["always"], True),
    ],
)
def test_other_restart_policies_are_refused(form: Any) -> None:
    assert places(refused(restart_policy=form))[0][0] == "restart_policy"


@pytest.mark.parametrize(
    ("form", "check"),
    [
        ({}, Healthcheck()),
        ({"test": "curl -f x || exit 1"}, Healthcheck(test=("CMD-SHELL", "curl -f x || exit 1"))),
        ({"test": ["CMD-SHELL", "true"]}, Healthcheck(test=("CMD-SHELL", "true"))),
        ({"test": ["CMD", "wget", "x"]}, Healthcheck(test=("CMD", "wget", "x"))),
        ({"test": ["wget", "x"]}, Healthcheck(test=("CMD", "wget", "x"))),
        ({"test": ["NONE"]}, Healthcheck(disable=True)),
        ({"disable": True}, Healthcheck(disable=True)),
        ({"disable": False, "retries": 3}, Healthcheck(retries=3)),
        ({"interval": 0.001, "timeout": 5}, Healthcheck(interval=0.001, timeout=5)),
        ({"start_period": 1.5}, Healthcheck(start_period=1.5)),
    ],
)
def test_health_checks_are_taken_in_every_form(form: Any, check: Healthcheck) -> None:
    assert accepted(healthcheck=form).healthcheck == check


@pytest.mark.parametrize(
    "form",
    [
        *({"test": test} for test in ("", [], ["CMD"], ["CMD", ""], ["CMD-SHELL"], [""], 1)),
        *({"test": test} for test in (["CMD-SHELL", ""], ["CMD-SHELL", "a", "b"], ["NONE", "a"])),
        *({name: 0} for name in ("interval", "timeout", "start_period", "retries")),
        *({name: 0.0009} for name in ("interval", "timeout", "start_period")),
        *({name: "30s"} for name in ("interval", "timeout", "start_period", "retries")),
        *({"disable": True, **more} for more in ({"test": "true"}, {"retries": 1})),
        {"test": ["NONE"], "interval": 1},
        *({"cmd": "true"}, "true", ["CMD", "true"], 1),
    ],
)
def test_what_is_no_health_check_is_refused(form: Any) -> None:
    assert places(refused(healthcheck=form))[0][0] == "healthcheck"


@pytest.mark.parametrize(
    ("form", "driver"),
    [
        ("none", LogDriver(name="none")),
        ("journald", LogDriver(name="journald")),
        (
            {"name": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
            LogDriver(name="json-file", options={"max-size": "10m", "max-file": "3"}),
        ),
        (
            {"name": "local", "options": {"mode": "non-blocking", "max-buffer-size": "4m"}},
            LogDriver(name="local", options={"mode": "non-blocking", "max-buffer-size": "4m"}),
        ),
    ],
)
def test_log_drivers_are_taken_in_both_forms(form: Any, driver: LogDriver) -> None:
    assert accepted(log_driver=form).log_driver == driver


@pytest.mark.parametrize(
    ("form", "named"),
    [
        *(
            (name, "json-file, local, journald, none")
            for name in ("syslog", "awslogs", "", "fluentd")
        ),
        ({"name": "splunk", "options": {"splunk-token": "x"}}, "json-file, local, journald, none"),
        (
            {"name": "local", "options": {"tag": "x"}},
            "compress, max-buffer-size, max-file, max-size",
        ),
        ({"name": "journald", "options": {"max-size": "1m"}}, "env, env-regex, labels"),
        ({"name": "none", "options": {"max-size": "1m"}}, "none"),
        ({"name": "json-file", "options": {"max-size": "big"}}, "max-size"),
        ({"name": "json-file", "options": {"max-file": "0"}}, "max-file"),
        ({"name": "json-file", "options": {"compress": "yes"}}, "compress"),
        ({"name": "json-file", "options": {"mode": "fast"}}, "mode"),
        ({"name": "json-file", "options": {"max-buffer-size": "1m"}}, "non-blocking"),
        ({"name": "json-file", "options": {"tag": "a\0"}}, "NUL"),
    ],
)
def test_other_log_drivers_and_options_are_refused_naming_those_there_are(
    form: Any, named: str
) -> None:
    assert named in why(log_driver=form)
    assert places(refused(log_driver=form))[0][0] == "log_driver"


def test_what_is_no_log_driver_is_refused() -> None:
    for form in (1, ["local"], {}, {"options": {}}, {"name": 1}, {"name": "local", "opts": {}}):
        assert places(refused(log_driver=form))[0][0] == "log_driver"
