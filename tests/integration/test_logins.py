"""Logins at a real registry: what is found opens it, for the real engine, and nothing else does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from aiodocker.exceptions import DockerError

from container_manager.credential import NamedLogin
from container_manager.engine.logins import Logins
from tests.support.credential_helpers import keeper
from tests.support.daemon import COMMAND, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.registry import PrivateRegistry

pytestmark = [pytest.mark.engine, pytest.mark.registry]


@pytest_asyncio.fixture
async def pushed(
    docker: aiodocker.Docker, image: str, private_registry: PrivateRegistry
) -> AsyncIterator[str]:
    """An image that the private registry has and the engine has not."""
    name = f"{private_registry.address}/container-manager-test/private"
    await docker.images.tag(image, repo=name, tag="1")
    login = {"username": private_registry.username, "password": private_registry.password}
    await docker.images.push(name, tag="1", auth=login)
    await docker.images.delete(f"{name}:1")
    yield name
    if await present(docker, f"{name}:1"):
        await docker.images.delete(f"{name}:1")


async def present(docker: aiodocker.Docker, name: str) -> bool:
    try:
        return bool(await docker.images.inspect(name))
    except DockerError:
        return False


async def pull(docker: aiodocker.Docker, name: str, header: str | None) -> str | None:
    """Pull by the engine's plain API, with this X-Registry-Auth; gives the error, None for none."""
    try:
        async with docker._query(
            "images/create",
            "POST",
            params={"fromImage": name, "tag": "1"},
            headers={"X-Registry-Auth": header} if header else None,
            timeout=aiohttp.ClientTimeout(60),
        ) as answer:
            said = [json.loads(line) async for line in answer.content if line.strip()]
    except DockerError as error:
        failure: str | None = error.message
    else:
        failure = next((one["error"] for one in said if "error" in one), None)
    assert await present(docker, f"{name}:1") is (failure is None)
    return failure


class Home:
    """A user's home with a config.json for docker."""

    def __init__(self, path: Path, config: object) -> None:
        self.environment = {
            "HOME": str(path),
            "XDG_RUNTIME_DIR": str(path),
            "PATH": f"{path}:{os.environ['PATH']}",
        }
        (path / ".docker").mkdir()
        (path / ".docker/config.json").write_text(json.dumps(config))

    async def header(self, registry: str) -> str | None:
        return await Logins(lambda _: None, self.environment).header(registry, None)


async def test_the_login_of_dockers_file_opens_what_nobody_else_gets(
    docker: aiodocker.Docker, private_registry: PrivateRegistry, pushed: str, tmp_path: Path
) -> None:
    plain = f"{private_registry.username}:{private_registry.password}".encode()
    auth = base64.b64encode(plain).decode()
    home = Home(tmp_path, {"auths": {f"http://{private_registry.address}": {"auth": auth}}})
    assert await home.header("docker.io") is None
    refused = str(await pull(docker, pushed, None))
    assert "no basic auth credentials" in refused or "unauthorized" in refused
    assert await pull(docker, pushed, await home.header(private_registry.address)) is None


async def test_the_login_of_a_credential_helper_opens_it(
    docker: aiodocker.Docker, private_registry: PrivateRegistry, pushed: str, tmp_path: Path
) -> None:
    login = (private_registry.username, private_registry.password)
    keeper(tmp_path, "test", {private_registry.address: login})
    home = Home(tmp_path, {"credHelpers": {private_registry.address: "test"}})
    assert await pull(docker, pushed, await home.header(private_registry.address)) is None


async def test_a_named_credential_opens_it_and_a_wrong_password_does_not(
    docker: aiodocker.Docker, private_registry: PrivateRegistry, pushed: str
) -> None:
    def named(password: str) -> Logins:
        login = NamedLogin(
            name="test",
            registry=private_registry.address,
            username=private_registry.username,
            secret=password,
        )
        return Logins({"test": login}.get, {})

    wrong = await named("battery staple").header(private_registry.address, "test")
    assert "unauthorized" in str(await pull(docker, pushed, wrong))
    right = await named(private_registry.password).header(private_registry.address, "test")
    assert await pull(docker, pushed, right) is None


# Jobs that name a credential

QUICKLY = {"max_attempts": 3, "backoff": 0.05}
WRONG = "canary-wrong-password"


async def set_credential(node: Daemon, name: str, registry: str, user: str, secret: str) -> None:
    """Keep a login as a person does, while the daemon runs."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--data-dir", str(node.data_dir), "credential", "set", name),
        *("--registry", registry, "--username", user, "--password-stdin"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    printed, _ = await process.communicate(secret.encode())
    assert (process.returncode, printed) == (0, b"")


async def job_of(node: Daemon, image: str, **fields: object) -> dict[str, Any]:
    """A job of this image, when it is final."""
    return await node.wait(
        await node.create(image, type="batch", arguments=["true"], retry=QUICKLY, **fields)
    )


def unseen(node: Daemon, secret: str, *jobs: dict[str, Any]) -> None:
    """No log, no status and no file of the data directory has the secret."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    for text in (node.log, json.dumps(jobs)):
        assert secret not in text
        assert encoded not in text
    for path in node.data_dir.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


async def test_a_job_pulls_by_the_credential_that_it_names(
    docker: aiodocker.Docker, private_registry: PrivateRegistry, pushed: str, daemon: MakeDaemon
) -> None:
    node = await daemon("--log-level", "debug")
    registry, secret = private_registry.address, private_registry.password
    without = await job_of(node, f"{pushed}:1")
    assert (without["status"], without["attempts"]) == ("failed", 1)
    assert f"`docker login {registry}`" in without["reason"]
    assert "or a named credential" in without["reason"]
    await set_credential(node, "team", registry, private_registry.username, secret)
    job = await job_of(node, f"{pushed}:1", credential="team")
    assert (job["status"], job["attempts"]) == ("complete", 1), job["reason"]
    assert await present(docker, f"{pushed}:1")
    unseen(node, secret, without, job, await node.call("ContainerService.List"))


async def test_a_credential_that_does_not_fit_fails_at_once_in_clear_words(
    docker: aiodocker.Docker, private_registry: PrivateRegistry, pushed: str, daemon: MakeDaemon
) -> None:
    node = await daemon("--log-level", "debug")
    registry, user = private_registry.address, private_registry.username
    await set_credential(node, "elsewhere", "quay.io", user, private_registry.password)
    await set_credential(node, "wrong", registry, user, WRONG)
    image = f"{pushed}:1"
    unknown = await job_of(node, image, credential="nobody")
    assert unknown["reason"].startswith("this node has no credential 'nobody'. Make it with ")
    elsewhere = await job_of(node, image, credential="elsewhere")
    words = f"the credential 'elsewhere' is for quay.io and is not sent to {registry}"
    assert elsewhere["reason"].startswith(words)
    wrong = await job_of(node, image, credential="wrong")
    assert f"the registry {registry} refuses" in wrong["reason"]
    assert "the login that was used has no right to it" in wrong["reason"]
    for job in (unknown, elsewhere, wrong):
        assert (job["status"], job["attempts"]) == ("failed", 1)
    assert not await present(docker, image)
    unseen(node, WRONG, unknown, elsewhere, wrong)
    unseen(node, private_registry.password, unknown, elsewhere, wrong)
