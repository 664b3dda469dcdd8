"""Volumes and tmpfs: named or in memory, and nothing of the host."""

from __future__ import annotations

from typing import Any

import pytest

from container_manager.spec.mounts import Tmpfs, Volume
from tests.unit.spec_forms import accepted, places, refused, why


@pytest.mark.parametrize(
    ("form", "volume"),
    [
        ("data:/path", Volume(name="data", target="/path")),
        ("data:/path:ro", Volume(name="data", target="/path", read_only=True)),
        ("data:/path:rw", Volume(name="data", target="/path")),
        (
            "data:/path:ro,nocopy",
            Volume(name="data", target="/path", read_only=True, nocopy=True),
        ),
        ("d.a_t-a1:/a/../b//c/", Volume(name="d.a_t-a1", target="/b/c")),
        ("data://path", Volume(name="data", target="/path")),
        (
            {"name": "data", "target": "/path", "read_only": True},
            Volume(name="data", target="/path", read_only=True),
        ),
        (
            {"name": "data", "target": "/with:colon", "nocopy": True},
            Volume(name="data", target="/with:colon", nocopy=True),
        ),
    ],
)
def test_named_volumes_are_taken_in_both_forms(form: Any, volume: Volume) -> None:
    assert accepted(volumes=[form]).volumes == (volume,)


@pytest.mark.parametrize(
    "form",
    [
        *("", ":", "data", "/data", "data:", "data:path", "data:/", "data:/a/..", ":/path"),
        *("d:/path", "da ta:/path", "däta:/path", "data:/path:z", "data:/path:ro:rw", "-d:/path"),
        *("data:/path:rshared", "data:/a\0b", "x" * 129 + ":/path", "data:/" + "x" * 4096),
        *("/x:/y", "./x:/y", "~/x:/y", "a/b:/y"),
        *({"name": "data"}, {"target": "/path"}, {"name": "data", "target": "path"}),
        *({"name": "data", "target": "/path", "read_only": "yes"}, 1, None, ["data", "/path"]),
    ],
)
def test_what_is_no_named_volume_is_refused_with_its_place(form: Any) -> None:
    assert {place[:2] for place in places(refused(volumes=["data:/data", form]))} == {
        ("volumes", 1)
    }


def test_a_nameless_volume_is_to_be_named() -> None:
    assert 'name the volume: "data:/path"' in why(volumes=["/data"])


def test_every_mount_has_a_path_of_its_own() -> None:
    assert "path" in why(volumes=["data:/a", "other:/a/"])
    accepted(volumes=["data:/a", "data:/a/b"])  # the same volume twice is fine


@pytest.mark.parametrize(
    ("form", "mounts"),
    [
        (["/run"], [("/run", "")]),
        (["/run", "/tmp:size=64m,mode=1777"], [("/run", ""), ("/tmp", "size=64m,mode=1777")]),
        ({"/run": "", "/tmp": "ro,noexec"}, [("/run", ""), ("/tmp", "ro,noexec")]),
        ({"/run": None}, [("/run", "")]),
        ([{"target": "/run/", "options": "exec,uid=1,gid=2"}], [("/run", "exec,uid=1,gid=2")]),
        # Of the documentation of `docker run`; the engine has these two on by itself.
        (["/run:rw,noexec,nosuid,size=65536k"], [("/run", "rw,noexec,nosuid,size=65536k")]),
        (["/run:size=50%,nodev"], [("/run", "size=50%,nodev")]),
        ([], []),
        ({}, []),
    ],
)
def test_tmpfs_is_taken_in_every_form(form: Any, mounts: list[tuple[str, str]]) -> None:
    assert accepted(tmpfs=form).tmpfs == tuple(
        Tmpfs(target=target, options=options) for target, options in mounts
    )


@pytest.mark.parametrize(
    "options",
    [
        *("suid", "dev", "size=64m,suid", "noexec,dev", "bind", "size=", "size=-1", "size=64mm"),
        *(
            "mode=999",
            "mode=01777",
            "uid=root",
            "nr_inodes=5",
            "mpol=default",
            "a",
            ",",
            "ro,",
            " ro",
        ),
        *("remount", "rshared", "RO", "size=64m mode=1777", "size=٣m"),
    ],
)
def test_other_options_of_tmpfs_are_refused_naming_those_that_there_are(options: str) -> None:
    for form in ([f"/run:{options}"], {"/run": options}, [{"target": "/run", "options": options}]):
        assert "noexec" in why(tmpfs=form)
    assert places(refused(tmpfs=["/a", f"/run:{options}"])) == [("tmpfs", 1, "options")]
    assert places(refused(tmpfs={"/run": options})) == [("tmpfs", "/run", "options")]


@pytest.mark.parametrize(
    "form", ["/run", ["run"], ["/"], [""], [1], {"run": ""}, {"/run": 5}, {"/run": ["ro"]}, None]
)
def test_what_is_no_tmpfs_is_refused(form: Any) -> None:
    assert places(refused(tmpfs=form))[0][0] == "tmpfs"


def test_every_tmpfs_has_a_path_of_its_own() -> None:
    assert "path" in why(tmpfs=["/a", "/a/:ro"])
