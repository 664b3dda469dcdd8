"""A dockerd of the test's own, next to any other, for tests that kill and restart the engine.

Seen with dockerd 20.10: its containerd ends with it, also at SIGKILL; the shims and the containers
live on. Started again, dockerd stops what it finds running (SIGTERM, SIGKILL ten seconds later,
before it answers) and shows it as exited. What hinders a restart is its own pid files while the
number in them is still known to the kernel, as that of a child which nobody has reaped yet.

It runs in a network namespace of its own, because the interface docker0 is dockerd's to make, to
change and to delete, and outside of such a namespace it is that of the machine's other engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.engine import IMAGE, Engine
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


class PrivateDockerd:
    """An engine with directories, a socket, a containerd and a network of its own.

    Nothing leaves that network, so it reaches no registry. Use it as an async context manager.
    """

    def __init__(self, tmp_dir: Path) -> None:
        # Not below the test's directory: a socket's path has at most 108 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="cm-engine-", dir="/tmp"))
        self.socket = self.home / "s"
        self.url = f"unix://{self.socket}"
        self.engine = Engine(self.url)
        self.log_path = tmp_dir / "dockerd.log"
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> PrivateDockerd:
        try:
            return await self.start()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def log(self) -> str:
        """All that it has printed, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def start(self, timeout: float = 60.0) -> PrivateDockerd:
        """Start it; return once it answers."""
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                # A new namespace has its loopback down, on which a swarm's manager calls itself.
                *("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec dockerd "$@"'),
                "dockerd",
                *("--data-root", str(self.home / "root"), "--exec-root", str(self.home / "exec")),
                *("--pidfile", str(self.home / "pid"), "-H", self.url),
                *("--bip", "198.18.255.1/24", "--iptables=false", "--ip-masq=false"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        async def answers() -> bool:
            if self.process is not None and self.process.returncode is not None:
                raise RuntimeError(f"dockerd ended:\n{self.log[-4000:]}")
            return await asyncio.to_thread(self.engine.answers)

        await eventually(answers, timeout, interval=0.05)
        return self

    async def kill(self) -> None:
        """End it as a crash would; its containers live on until it is started again."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self.process = None
        await self._end_containerd()

    async def stop(self, timeout: float = 30.0) -> None:
        """End it in order (SIGTERM), which stops its containers."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), timeout)
        finally:
            await self.kill()

    async def restart(self) -> PrivateDockerd:
        """Kill it and start it again."""
        await self.kill()
        return await self.start()

    async def import_busybox(self, name: str = IMAGE) -> str:
        """Make the tests' image in it."""
        await asyncio.to_thread(self.engine.import_busybox, name)
        return name

    async def close(self) -> None:
        """Leave nothing: no process, mount, control group or file."""
        if not self.home.exists():
            return
        containers = [path.name for path in (self.home / "root/containers").glob("*")]
        await self.kill()
        await self._end_shims()
        _unmount_below(self.home)
        for container in containers:
            _remove_cgroups(container)
        shutil.rmtree(self.home)

    async def _end_containerd(self) -> None:
        file = self.home / "exec/containerd/containerd.pid"
        if not file.exists():
            return
        pid = int(file.read_text() or 0)
        if str(self.home).encode() in _command(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await eventually(lambda: str(self.home).encode() not in _command(pid))
        # Process 1 may reap it late, and dockerd takes a dead containerd for a live one till then.
        file.unlink()

    async def _end_shims(self) -> None:
        address = str(self.home / "exec/containerd/containerd.sock").encode()

        def left() -> set[int]:
            shims = {pid for pid in _processes() if address in _command(pid)}
            return shims | {pid for pid in _processes() if _parent(pid) in shims}

        def none_left() -> bool:
            for pid in (pids := left()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        await eventually(none_left)


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _command(pid: int) -> bytes:
    """The command line; empty for what is dead, reaped or not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if Path(mount).is_relative_to(directory):
            subprocess.run(["umount", "--lazy", mount], check=True)


def _remove_cgroups(container: str) -> None:
    """A killed shim leaves the container's control groups behind, in each hierarchy."""
    # Not searched deeper: what others remove meanwhile would end the search.
    for pattern in (f"docker/{container}", f"*/docker/{container}"):
        for path in Path("/sys/fs/cgroup").glob(pattern):
            with contextlib.suppress(OSError):
                path.rmdir()
