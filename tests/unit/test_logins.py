"""Logins: which file, which entry, which helper; and to whom a named credential is sent."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from container_manager.credential import CredentialUnusable, NamedLogin, registry_name
from container_manager.engine.errors import EngineError, EngineRefused, EngineRejected
from container_manager.engine.login_file import MAX_SIZE, Login, matches
from container_manager.engine.logins import Logins, find
from tests.support.credential_helpers import keeper, shell_helper
from tests.unit.builders import CANARY, texts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HUB = "https://index.docker.io/v1/"
hosts = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,2}(:[0-9]{2,5})?", fullmatch=True)


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def said(header: str | None) -> dict[str, str]:
    """What a header says, read as the engine does."""
    assert header is not None
    assert not {"+", "/"} & set(header), "not base64url"
    content: dict[str, str] = json.loads(base64.b64decode(header, altchars=b"-_", validate=True))
    return content


class Home:
    """A user's home with its files, and a PATH with its helpers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.bin.mkdir()
        self.config = path / ".docker/config.json"
        self.environment = {
            "HOME": str(path),
            "XDG_RUNTIME_DIR": str(path / "run"),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }

    def write(self, content: Any, path: Path | None = None) -> Path:
        """Write a file of logins: docker's, or another one."""
        path = path or self.config
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    async def user(self, registry: str, **more: str) -> str | None:
        """Whose login is found for a registry."""
        login = await find(registry, {**self.environment, **more})
        return None if login is None else login.username

    async def failure(self, registry: str = "quay.io", **more: str) -> EngineError:
        """What is said where no login can be had; it never holds a secret."""
        with pytest.raises(EngineError) as caught:
            await find(registry, {**self.environment, **more})
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(caught.value.__cause__)
        return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# The header


@given(texts, texts.filter(bool), texts)
@example("quay.io", "??????", "~~~~~~")  # of which plain base64 makes "/" and "+"
def test_the_header_brings_back_what_went_in(server: str, username: str, secret: str) -> None:
    content = said(Login(server, username, secret, secret[::-1]).header())
    assert content == {
        key: value
        for key, value in {
            "serveraddress": server,
            "username": username,
            "password": secret,
            "identitytoken": secret[::-1],
        }.items()
        if value
    }


def test_a_login_shows_no_secret() -> None:
    for login in (Login("quay.io", "me", CANARY, CANARY), Login.of("quay.io", "<token>", CANARY)):
        assert CANARY not in f"{login!r} {login}"
    assert CANARY not in repr(NamedLogin(name="n", registry="r", username="u", secret=CANARY))


# What docker has


async def test_without_any_file_a_pull_has_no_login(home: Home) -> None:
    assert await find("quay.io", home.environment) is None
    home.write("")
    home.write({"auths": None, "credHelpers": None, "credsStore": None, "HttpHeaders": {}})
    assert await find("quay.io", home.environment) is None


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        (auth("me", "pass:word"), {"username": "me", "password": "pass:word"}),
        (auth("me", "ünï"), {"username": "me", "password": "ünï"}),
        (auth("me", "word\0\0"), {"username": "me", "password": "word"}),
        ({"auth": "bWU6\ncGFzcw=="}, {"username": "me", "password": "pass"}),
        ({"username": "me", "password": "word"}, {"username": "me", "password": "word"}),
        ({"identitytoken": "t"}, {"identitytoken": "t"}),
        ({**auth("me", ""), "identitytoken": "t"}, {"username": "me", "identitytoken": "t"}),
    ],
)
async def test_each_kind_of_entry_is_understood(
    home: Home, entry: dict[str, str], content: dict[str, str]
) -> None:
    home.write({"auths": {"quay.io": entry, HUB: entry}})
    logins = Logins(lambda _: None, home.environment)
    assert said(await logins.header("quay.io", None)) == {**content, "serveraddress": "quay.io"}
    assert said(await logins.header("docker.io", None)) == {**content, "serveraddress": HUB}
    assert await logins.header("ghcr.io", None) is None


@pytest.mark.parametrize("entry", [{}, None, {"auth": ""}, {"email": "me@example.com"}])
async def test_an_entry_without_a_login_is_none(home: Home, entry: Any) -> None:
    home.write({"auths": {"quay.io": entry}})
    assert await find("quay.io", home.environment) is None


@pytest.mark.parametrize(
    ("key", "registry", "matched"),
    [
        ("quay.io", "quay.io", True),
        ("QUAY.io", "quay.io", True),
        ("https://quay.io", "quay.io", True),
        ("https://quay.io/v1/", "quay.io", True),
        ("http://quay.io/any/path", "quay.io", True),
        ("quay.io/v2/", "quay.io", True),
        ("quay.io/", "quay.io", True),
        ("quay.io/team", "quay.io", False),
        ("quay.io:443", "quay.io", False),
        ("quay.io", "quay.io:443", False),
        ("127.0.0.1:5000", "127.0.0.1:5000", True),
        ("https://127.0.0.1:5000/v1/", "127.0.0.1:5000", True),
        ("[::1]:5000", "[::1]:5000", True),
        ("notquay.io", "quay.io", False),
        ("quay.io.example.com", "quay.io", False),
        ("https://quay.io@example.com", "quay.io", False),
        ("https://example.com/quay.io", "quay.io", False),
        ("", "quay.io", False),
        (HUB, "docker.io", True),
        ("docker.io", "docker.io", True),
        ("index.docker.io", "docker.io", True),
        ("https://index.docker.io/v1/access-token", "docker.io", False),
        ("https://index.docker.io/v1/refresh-token", "docker.io", False),
        ("hub.docker.com", "docker.io", False),
    ],
)
def test_a_key_is_for_a_registry_by_its_host(key: str, registry: str, matched: bool) -> None:
    assert matches(key, registry) is matched


@given(
    hosts, hosts, st.sampled_from(["", "http://", "https://"]), st.sampled_from(["", "/", "/v1/"])
)
def test_a_key_is_for_its_own_host_and_for_no_other(
    host: str, other: str, scheme: str, path: str
) -> None:
    key = f"{scheme}{host}{path}"
    assert matches(key, registry_name(host))
    assert matches(key, registry_name(other)) is (host == other)


async def test_dockers_own_key_comes_before_others_of_the_same_host(home: Home) -> None:
    home.write(
        {
            "auths": {
                "https://quay.io/v1/": auth("other", "x"),
                "quay.io": auth("own", "x"),
                "docker.io": auth("other", "x"),
                HUB: auth("own", "x"),
            }
        }
    )
    assert await home.user("quay.io") == "own"
    assert await home.user("docker.io") == "own"


async def test_the_registrys_helper_comes_before_that_for_all_and_both_before_the_file(
    home: Home,
) -> None:
    servers = ("quay.io", "ghcr.io", HUB)
    keeper(home.bin, "one", dict.fromkeys(servers, ("one", "x")))
    keeper(home.bin, "all", dict.fromkeys(servers, ("all", "x")))
    auths = {server: auth("file", "x") for server in (*servers, "gcr.io")}
    home.write({"auths": auths, "credHelpers": {"quay.io": "one"}, "credsStore": "all"})
    assert await home.user("quay.io") == "one"
    assert await home.user("ghcr.io") == "all"
    assert await home.user("docker.io") == "all"
    assert await home.user("gcr.io") is None, "what the helper lacks is not taken from the file"
    assert (home.bin / "all.asked").read_text().split() == [
        "get",
        "ghcr.io",
        "get",
        HUB,
        "get",
        "gcr.io",
    ]
    home.write({"auths": auths, "credHelpers": {"quay.io": "", HUB: "one"}, "credsStore": "all"})
    assert await home.user("quay.io") == "file", "an empty name is no helper"
    assert await home.user("docker.io") == "one"
    home.write({"auths": auths, "credHelpers": {"quay.io": "one"}})
    assert await home.user("docker.io") == "file"


async def test_a_helpers_token_is_an_identity_token(home: Home) -> None:
    keeper(home.bin, "all", {"quay.io": ("<token>", "t")})
    home.write({"credsStore": "all"})
    header = await Logins(lambda _: None, home.environment).header("quay.io", None)
    assert said(header) == {"identitytoken": "t", "serveraddress": "quay.io"}


async def test_a_login_counts_at_once(home: Home) -> None:
    """Also one that leaves the file's size and time as they were."""
    home.write({"auths": {"quay.io": auth("aa", "x")}})
    times = home.config.stat()
    assert await home.user("quay.io") == "aa"
    home.write({"auths": {"quay.io": auth("bb", "x")}})
    os.utime(home.config, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert await home.user("quay.io") == "bb"


# Where the files are


async def test_docker_comes_before_podman_and_named_places_before_the_usual(home: Home) -> None:
    def write(name: str, path: Path) -> str:
        return str(home.write({"auths": {"quay.io": auth(name, "x")}}, path))

    config, run = home.path / "config", home.path / "run/containers/auth.json"
    usual = home.path / ".config/containers/auth.json"
    write("usual", usual)
    assert await home.user("quay.io") == "usual"
    assert await home.user("quay.io", XDG_CONFIG_HOME=str(config)) is None
    write("config", config / "containers/auth.json")
    assert await home.user("quay.io", XDG_CONFIG_HOME=str(config)) == "config"
    write("run", run)
    assert await home.user("quay.io", XDG_CONFIG_HOME=str(config)) == "run"
    named = write("named", home.path / "named.json")
    assert await home.user("quay.io", REGISTRY_AUTH_FILE=named) == "named"
    assert await home.user("quay.io", REGISTRY_AUTH_FILE="/nonexistent") is None
    write("docker", home.config)
    assert await home.user("quay.io", REGISTRY_AUTH_FILE=named) == "docker"
    elsewhere = home.path / "elsewhere"
    assert await home.user("quay.io", DOCKER_CONFIG=str(elsewhere)) == "run"
    write("elsewhere", elsewhere / "config.json")
    assert await home.user("quay.io", DOCKER_CONFIG=str(elsewhere)) == "elsewhere"


async def test_podmans_file_has_helpers_too_and_calls_docker_hub_by_its_name(home: Home) -> None:
    keeper(home.bin, "one", {"docker.io": ("helper", "x")})
    path = home.path / "run/containers/auth.json"
    home.write({"auths": {"docker.io": auth("file", "x"), "quay.io/team": auth("team", "x")}}, path)
    assert await home.user("docker.io") == "file"
    assert await home.user("quay.io") is None, "a login for a part of a registry"
    home.write({"credHelpers": {"docker.io": "one"}}, path)
    assert await home.user("docker.io") == "helper"


# What is broken


@pytest.mark.parametrize(
    "content",
    [
        f'{{"auths": {{"quay.io": {{"auth": "{CANARY}"',
        "[]",
        '"x"',
        "null",
        " " * MAX_SIZE + "{}",
        "[" * 100_000,
    ],
)
async def test_a_file_that_is_no_object_is_named(home: Home, content: str) -> None:
    path = home.write(content)
    for error in (await home.failure(), await home.failure("docker.io")):
        assert isinstance(error, EngineRejected)
        assert str(path) in str(error)
        assert "log in again" in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"auths": []}, '"auths" is no object'),
        ({"auths": {"quay.io": CANARY}}, 'entry of "auths" for quay.io'),
        ({"auths": {"quay.io": {"auth": CANARY}}}, 'not "user:password" in base64'),
        ({"auths": {"quay.io": {"auth": "bm9jb2xvbg=="}}}, 'not "user:password" in base64'),
        ({"auths": {"quay.io": {"auth": "OnBhc3M="}}}, 'not "user:password" in base64'),
        ({"auths": {"quay.io": {"auth": "//86/w=="}}}, 'not "user:password" in base64'),
        ({"auths": {"quay.io": {"auth": [CANARY]}}}, "auth"),
        ({"credHelpers": ["x"]}, '"credHelpers" is no object'),
        ({"credHelpers": {"quay.io": 1}}, "credHelpers … quay.io"),
        ({"credsStore": 1}, '"credsStore" is no text'),
    ],
)
async def test_an_entry_that_cannot_be_understood_is_named(
    home: Home, content: Any, words: str
) -> None:
    path = home.write(content)
    error = await home.failure()
    assert isinstance(error, EngineRejected)
    assert str(path) in str(error)
    assert words in str(error)


async def test_another_registrys_broken_entry_is_in_nobodys_way(home: Home) -> None:
    home.write({"auths": {"ghcr.io": {"auth": "?"}, "quay.io": auth("me", "x")}})
    assert await home.user("quay.io") == "me"


async def test_a_file_that_cannot_be_read_is_named(home: Home) -> None:
    home.config.mkdir(parents=True)
    error = await home.failure()
    assert isinstance(error, EngineRejected)
    assert f"{home.config} cannot be read (Is a directory)" in str(error)


async def test_a_helper_that_fails_fails_the_login(home: Home) -> None:
    keeper(home.bin, "podmans", {"quay.io": ("podman", "x")})
    home.write({"credHelpers": {"quay.io": "podmans"}}, home.path / "run/containers/auth.json")
    shell_helper(home.bin, "locked", "exit 1")
    home.write({"credsStore": "locked"})
    assert isinstance(await home.failure(), EngineRefused)
    home.write({"credsStore": "nonexistent"})
    assert isinstance(await home.failure(), EngineRejected)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may read less")
@pytest.mark.parametrize(("variable", "refused"), [("HOME", False), ("DOCKER_CONFIG", True)])
async def test_a_home_that_may_not_be_looked_into_counts_as_empty_unless_it_is_named(
    home: Home, variable: str, refused: bool
) -> None:
    home.write({"auths": {"quay.io": auth("me", "x")}})
    home.config.parent.chmod(0)
    environment = {**home.environment, variable: str(home.path / (".docker" if refused else ""))}
    os.seteuid(65534)
    try:
        if refused:
            with pytest.raises(EngineRejected, match="Permission denied"):
                await find("quay.io", environment)
        else:
            assert await find("quay.io", environment) is None
    finally:
        os.seteuid(0)


# Named credentials

KEPT = {
    "prod": NamedLogin(name="prod", registry="quay.io", username="me", secret=CANARY),
    "hub": NamedLogin(name="hub", registry="docker.io", username="me", secret=CANARY),
    "token": NamedLogin(name="token", registry="quay.io", username="<token>", secret=CANARY),
}


async def refused(registry: str, name: str, environment: Mapping[str, str]) -> str:
    with pytest.raises(EngineRejected) as caught:
        await Logins(KEPT.get, environment).header(registry, name)
    assert CANARY not in str(caught.value)
    return str(caught.value)


async def test_a_named_credential_is_sent_to_its_registry_and_no_file_is_asked(home: Home) -> None:
    home.write("broken")
    logins = Logins(KEPT.get, home.environment)
    kept = {"username": "me", "password": CANARY}
    assert said(await logins.header("quay.io", "prod")) == {**kept, "serveraddress": "quay.io"}
    assert said(await logins.header("docker.io", "hub")) == {**kept, "serveraddress": HUB}
    assert said(await logins.header("QUAY.IO", "token")) == {
        "identitytoken": CANARY,
        "serveraddress": "quay.io",
    }


async def test_a_named_credential_is_sent_to_no_other_registry(home: Home) -> None:
    for registry in ("docker.io", "quay.io:443", "evil.example.com", "quay.io.example.com"):
        words = await refused(registry, "prod", home.environment)
        assert f"'prod' is for quay.io and is not sent to {registry}" in words
        assert "Name a credential for that registry" in words


async def test_a_credential_that_there_is_not_is_told_with_the_command(home: Home) -> None:
    home.write({"auths": {"quay.io": auth("me", CANARY)}})
    words = await refused("quay.io", "other", home.environment)
    assert "no credential 'other'" in words
    assert "container-manager credential set other --registry quay.io" in words


async def test_credentials_that_cannot_be_read_are_told(home: Home) -> None:
    def broken(_: str) -> NamedLogin | None:
        raise CredentialUnusable("The file is broken. Mend it.")

    with pytest.raises(
        EngineRejected, match=r"'prod' cannot be used. The file is broken. Mend it."
    ):
        await Logins(broken, home.environment).header("quay.io", "prod")
