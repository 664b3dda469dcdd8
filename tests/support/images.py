"""Images made of nothing but bytes and put into a registry, past any engine.

An engine that pulls one has none of its random layers beforehand, however often the tests run.
Formats: https://distribution.github.io/distribution/spec/manifest-v2-2/ (the manifest) and
https://github.com/moby/docker-image-spec (the configuration).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.engine import IDLE, busybox_tar

if TYPE_CHECKING:
    from collections.abc import Sequence

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


async def publish(
    registry: str,
    repository: str,
    sizes: Sequence[int] = (),
    *,
    tag: str = "latest",
    config: dict[str, Any] | None = None,
    architecture: str | None = None,
) -> str:
    """Put an image of the system's busybox and a layer of random bytes for each of `sizes`.

    Args:
        registry: its HOST:PORT.
        repository: the image's name in it.
        sizes: bytes of the random layers, uncompressed and incompressible.
        tag: the image's tag.
        config: more of the image's configuration: {"Healthcheck": …}, say.
        architecture: what the image says that it is for; this machine's, if None.

    Returns:
        The digest of the manifest.
    """
    layers = [busybox_tar(), *map(_random_layer, sizes)]
    image = {
        "architecture": architecture or _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": IDLE, "Env": ["PATH=/bin"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
    }
    configuration = json.dumps(image).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, configuration),
        "layers": [_descriptor(_LAYER, layer) for layer in layers],
    }
    body = json.dumps(manifest).encode()
    base = f"http://{registry}/v2/{repository}"
    async with aiohttp.ClientSession(raise_for_status=True) as client:
        for blob in (configuration, *layers):
            async with client.post(f"{base}/blobs/uploads/") as begun:
                place = begun.headers["Location"]
            async with client.put(place, params={"digest": _digest(blob)}, data=io.BytesIO(blob)):
                pass
        headers = {"Content-Type": _MANIFEST}
        async with client.put(f"{base}/manifests/{tag}", data=body, headers=headers):
            pass
    return _digest(body)


def _random_layer(size: int) -> bytes:
    content = os.urandom(size)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        file = tarfile.TarInfo(f"random-{_digest(content)[-12:]}")
        file.size = size
        tar.addfile(file, io.BytesIO(content))
    return out.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(content), "digest": _digest(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
