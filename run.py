#!/usr/bin/env python3
"""Set up, try out and check container-manager from a fresh checkout.

Needs Python 3.11 or newer and nothing else. What is missing comes from the package index into
.venv/, and from Debian's package manager, which a person at the terminal is asked about first.
What a command starts or makes outside .venv/ it takes away again, also on Ctrl-C.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the line for those who have an older one
    sys.exit("run.py needs Python 3.11 or newer; this is " + sys.version.split()[0] + ".")

import argparse
import functools
import hashlib
import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
IMAGE, TAG = "busybox", "latest"
LABEL = "io.container-manager.job"
# Podman's helpers for networks are in a directory of their own.
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/lib/podman"
BEGAN = time.monotonic()


class ProblemError(Exception):
    """What happened, in one line, and what the reader can do about it, in another."""


def say(text: str) -> None:
    """Print one step with the time since the start."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}")


# --- Starting things, and undoing them ---


class Signals:
    """Makes the first SIGINT, SIGTERM or SIGHUP an orderly exit, which waits while held."""

    def __init__(self) -> None:
        self.received = 0
        self._held = False

    def install(self) -> None:
        """Take over the signals, also where the parent had them ignored."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, _frame: object) -> None:
        if not self.received:  # Else it is cleaning up, and each step of that has a limit.
            self.received = signum
            print("Interrupted: cleaning up", file=sys.stderr)
            if not self._held:
                raise SystemExit(128 + signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no signal come between an effect and the note of how to undo it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.received:
            raise SystemExit(128 + self.received)


SIGNALS = Signals()


class Undo:
    """How to undo what was done, newest first: for this program, or for a person after --keep."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[[], object], str]] = []

    def add(self, action: Callable[[], object], by_hand: str) -> None:
        """Note how something is undone, and the shell command with which a person would."""
        self._steps.append((action, by_hand))

    def forget(self) -> list[str]:
        """Leave everything as it is; answer the commands that undo it."""
        commands = [by_hand for _, by_hand in reversed(self._steps)]
        self._steps.clear()
        return commands

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        with SIGNALS.held():
            while self._steps:
                action, by_hand = self._steps.pop()
                try:
                    action()
                except (OSError, ValueError, http.client.HTTPException) as error:
                    print(f"Cleaning up: {error}. By hand: {by_hand}", file=sys.stderr)


def call(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Run a command in the foreground, and see to something else every now and then.

    When interrupted, let it clean up after itself.
    """
    child = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        while True:
            try:
                return child.wait(0.5)
            except subprocess.TimeoutExpired:
                meanwhile()
    except SystemExit:
        # The terminal has told the whole group of a Ctrl-C: twice would cut its own cleaning up.
        told = SIGNALS.received == signal.SIGINT and sys.stdin.isatty()
        _end(child, 0 if told else signal.SIGINT, 60)
        raise


def _end(child: subprocess.Popen[bytes], signum: int, limit: float) -> None:
    for number in (signum, int(signal.SIGKILL)):
        try:
            if child.poll() is None:
                os.kill(child.pid, number)
        except PermissionError:  # It runs as root, through sudo.
            subprocess.run(["sudo", "-n", "kill", f"-{number}", str(child.pid)], check=False)
        try:
            child.wait(limit)
            return
        except subprocess.TimeoutExpired:
            say(f"Process {child.pid} does not end by signal {number}")


def serve(
    undo: Undo,
    command: Sequence[str],
    directory: Path,
    ready: Callable[[], bool],
    settings: Mapping[str, str] | None = None,
) -> None:
    """Start a server out of the terminal's reach, and wait until it is ready."""
    log, name = directory / "log", " ".join(command[:3])
    env = server_environment(settings or {})
    with SIGNALS.held(), log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        by_hand = f"{'sudo ' if command[0] == 'sudo' else ''}kill {child.pid}"
        undo.add(lambda: _end(child, signal.SIGTERM, 30), by_hand)
    wait_until(lambda: child.poll() is not None or ready(), 60)
    if child.poll() is not None or not ready():
        show_log(directory)
        raise ProblemError(f"This did not become ready: {name}", "The end of its log is above.")


def server_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Give the environment without settings of container-manager's and Podman's, but for these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINER")}
    return {**kept, **settings}


def show_log(directory: Path) -> None:
    """Show the last lines of a server's log."""
    lines = (directory / "log").read_text(errors="replace").splitlines()[-15:]
    print(*(f"    {line}" for line in lines), sep="\n", file=sys.stderr)


def wait_until(ready: Callable[[], bool], limit: float) -> None:
    """Look again and again until something is so, or time is up."""
    deadline = time.monotonic() + limit
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.05)


def work_directory(undo: Undo) -> Path:
    """Make a temporary directory."""
    with SIGNALS.held():
        path = Path(tempfile.mkdtemp(prefix="container-manager-"))
        undo.add(lambda: shutil.rmtree(path), f"rm -r {path}")
    return path


def free_port() -> int:
    """Find a loopback port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- Packages: Debian's and Python's ---


def which(command: str) -> str | None:
    """Find a command, also where only root's path has it."""
    return shutil.which(command, path=SEARCH_PATH)


def agreed(what: str) -> bool:
    """Ask the person at the terminal; where there is none, say what is done and go on."""
    if not sys.stdin.isatty() or os.environ.get("CI") == "true":
        say(what)
        return True
    try:
        return input(f"{what}? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def as_root() -> list[str]:
    """Give what goes before a command that needs root."""
    if os.geteuid() == 0:
        return []
    if not which("sudo"):
        raise ProblemError("This needs root, and there is no sudo.", "Run it as root.")
    return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, having asked."""
    if not packages:
        return
    names = " ".join(packages)
    if not which("apt-get"):
        engine = (
            "a container engine (Docker or Podman), start it" if "docker.io" in names else names
        )
        raise ProblemError(
            f"Missing here, and no apt-get to install it: {names}",
            f"Install {engine} and run this again.",
        )
    if not agreed(f"Install Debian's {names}"):
        raise ProblemError(f"Not installed: {names}", "Install it yourself and run this again.")
    _apt_update()
    if _apt("install", "-y", "--no-install-recommends", *packages) != 0:
        raise ProblemError(
            f"apt-get could not install {names}.", "See its message above, then run this again."
        )


@functools.cache
def _apt_update() -> None:
    _apt("update")  # One source that fails need not matter: the installation will tell.


def _apt(*arguments: str) -> int:
    command = [*as_root(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def environment(*, dev: bool) -> None:
    """Make .venv/ with the pinned packages; do nothing where it is as it should be."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = f"{sys.version} {ROOT}\n"
    wanted = ["requirements.txt", "requirements-dev.txt"][: 1 + dev]
    lines = [f"{name} {sha256((ROOT / name).read_bytes())}\n" for name in wanted]
    stamp = VENV / "container-manager.stamp"
    stamped = stamp.read_text() if stamp.is_file() else ""
    usable = stamped.startswith(base) and Path(PYTHON).exists()
    if usable and lines[-1] in stamped:
        return
    stamp.unlink(missing_ok=True)
    if not usable:
        if not importlib.util.find_spec("ensurepip"):
            install([f"{version}-venv"])
        say("Making .venv/")
        if call([sys.executable, "-m", "venv", "--clear", str(VENV)]) != 0:
            raise ProblemError("Python could not make .venv/.", "See its message above.")
    say(f"Installing {wanted[-1]} into .venv/")
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    if call([*pip, "--require-hashes", "-r", wanted[-1]]) != 0:
        raise ProblemError(
            f"pip could not install {wanted[-1]}.",
            "See its message above. If the package index was out of reach, run this again.",
        )
    path_file = VENV / "lib" / version / "site-packages" / "container_manager.pth"
    path_file.write_text(f"{ROOT}\n")
    stamp.write_text(base + "".join(lines))


def sha256(data: bytes) -> str:
    """Hash to hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# --- Talking HTTP: to the engine, the daemon and the registry ---


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, limit: float) -> None:
        super().__init__("localhost", timeout=limit)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Server:
    """An HTTP server at unix:///path, tcp://host:port or http://host:port."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connection(self, limit: float) -> http.client.HTTPConnection:
        """Prepare a connection of which no single step takes longer than the limit."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, limit)
        if parts.scheme not in ("tcp", "http") or not parts.hostname:
            raise OSError(f"{self.url} is neither unix:// nor tcp://")
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=limit)

    def ask(
        self, method: str, path: str, body: bytes | None = None, limit: float = 10
    ) -> tuple[int, bytes]:
        """Make one request; give the status and the whole answer."""
        with closing(self.connection(limit)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()

    def answers(self, path: str) -> bool:
        """Tell whether GET gives 200. A refused permission is raised: somebody is there."""
        try:
            return self.ask("GET", path, limit=3)[0] == 200
        except PermissionError:
            raise
        except (OSError, ValueError, http.client.HTTPException):
            return False


# --- The engine ---


def context_url(home: Path, environ: Mapping[str, str]) -> str | None:
    """Read the engine's address from the docker client's current context."""
    directory = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    try:
        name = environ.get("DOCKER_CONTEXT")
        name = name or json.loads((directory / "config.json").read_text())["currentContext"]
        meta = directory / "contexts" / "meta" / sha256(name.encode()) / "meta.json"
        return str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def engine_urls(home: Path, environ: Mapping[str, str]) -> list[str]:
    """List where an engine may be, the likeliest first."""
    if environ.get("DOCKER_HOST"):
        return [environ["DOCKER_HOST"]]
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    sockets = [
        Path("/var/run/docker.sock"),
        Path("/run/docker.sock"),
        home / ".docker/run/docker.sock",
        runtime / "docker.sock",
        Path("/run/podman/podman.sock"),
        runtime / "podman/podman.sock",
    ]
    context = context_url(home, environ)
    return [*([context] if context else []), *(f"unix://{path}" for path in sockets)]


def find_engine() -> Server | None:
    """Find an engine that answers."""
    denied = []
    for url in engine_urls(Path.home(), os.environ):
        try:
            if Server(url).answers("/_ping"):
                return Server(url)
        except PermissionError:
            denied.append(url)
    if denied:
        raise ProblemError(
            f"An engine is at {denied[0]}, but this user may not use it.",
            "Run this as root, or join the group of that socket and log in again.",
        )
    if os.environ.get("DOCKER_HOST"):
        raise ProblemError(
            f"DOCKER_HOST is {os.environ['DOCKER_HOST']}, and no engine answers there.",
            "Start that engine, or unset DOCKER_HOST; unix:// and tcp:// without TLS will do.",
        )
    return None


def engine_ready(undo: Undo, also: Sequence[str] = ()) -> Server:
    """Find the engine, else install and start one; install other packages on the way."""
    engine = find_engine()
    absent = engine is None and which("dockerd") is None
    install([*(["docker.io", "iptables", "ca-certificates"] if absent else []), *also])
    if absent and Path("/run/systemd/system").is_dir():
        wait_until(lambda: find_engine() is not None, 20)
    engine = engine or find_engine()
    if engine is None:
        say("Starting dockerd")
        root = as_root()
        if root and call([*root, "true"]) != 0:  # Here sudo may ask for the password.
            raise ProblemError("dockerd needs root, and sudo refused.", "Run this as root.")
        command = ["sudo", "-n"] if root else []
        command += [which("dockerd") or "dockerd"]
        command += ["--group", str(os.getgid())] if root else []
        engine = Server("unix:///var/run/docker.sock")
        serve(undo, command, work_directory(undo), functools.partial(engine.answers, "/_ping"))
    say(f"Engine: {engine.url}")
    return engine


# --- The image of the demo ---


def static_busybox() -> str | None:
    """Find a busybox that needs no shared libraries, which an image of its own would lack."""
    found = which("busybox")
    if found and not re.search(rb"/lib[^\0]*/ld[^\0]*\.so", Path(found).read_bytes()[:4096]):
        return found
    return None


def image_tar(busybox: bytes, applets: Sequence[str]) -> bytes:
    """Pack a root file system: busybox, a link for each applet, /tmp and a little /etc."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            tar.addfile(info, io.BytesIO(data))

        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            add(name, tarfile.DIRTYPE, mode)
        add("etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
        add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\n")
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox)
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
    return packed.getvalue()


def create_image(engine: Server, query: Mapping[str, str], body: bytes | None = None) -> str:
    """Let the engine pull or import an image; tell what went wrong, if anything did."""
    deadline = time.monotonic() + 20
    try:
        with closing(engine.connection(10)) as connection:
            headers = {"Content-Type": "application/x-tar"}
            connection.request("POST", f"/images/create?{urlencode(query)}", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                return str(json.loads(response.read())["message"])
            for line in response:
                if b'"error"' in line:
                    return str(json.loads(line)["error"])
                if time.monotonic() > deadline:
                    return "it takes too long"
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return str(error)
    return ""


def image_ready(undo: Undo, engine: Server) -> None:
    """Have the demo's image: the one at hand, else the registry's, else one of our own."""
    image = f"{IMAGE}:{TAG}"
    if engine.ask("GET", f"/images/{image}/json")[0] == 200:
        say(f"Image {image}: at hand")
        return
    undo.add(lambda: engine.ask("DELETE", f"/images/{image}"), f"docker image rm {image}")
    say(f"Image {image}: pulling")
    failure = create_image(engine, {"fromImage": IMAGE, "tag": TAG})
    if not failure:
        return
    say(f"No registry has it for us ({failure}). Making it from a static busybox")
    if not static_busybox():
        install(["busybox-static"])
    busybox = static_busybox() or "busybox"
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=False)
    packed = image_tar(Path(busybox).read_bytes(), listed.stdout.split())
    query = {"fromSrc": "-", "repo": IMAGE, "tag": TAG, "changes": 'CMD ["/bin/sh"]'}
    failure = create_image(engine, query, packed)
    if failure:
        raise ProblemError(
            f"The engine cannot import {image}: {failure}", "Load that image, then run this again."
        )


# --- demo ---

CURL = re.compile(r"\bcurl\b(?:[^'\n]|\\\n|'[^']*')*?\s(?:-d|--data|--json)\s+'([^']*)'")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def readme_call(readme: str, method: str) -> bytes:
    """Give the body of the first curl command in the README that calls this method."""
    for body in CURL.findall(readme):
        if re.search(rf'"method"\s*:\s*"{re.escape(method)}"', body):
            return str(body).encode()
    raise ProblemError(f"README.md has no curl command for {method}.", "Restore that example.")


def rpc(daemon: Server, body: bytes) -> dict[str, Any]:
    """Make one JSON-RPC call and give its result."""
    answer: dict[str, Any] = json.loads(daemon.ask("POST", "/jrpc", body)[1])
    if "result" not in answer:
        raise ProblemError(f"The daemon answered {json.dumps(answer)}", f"to {body.decode()}")
    result: dict[str, Any] = answer["result"]
    return result


def demultiplex(data: bytes) -> str:
    """Take the text out of a container's log, with or without the engine's frames."""
    text = b""
    while len(data) >= 8 and data[0] <= 2 and data[1:4] == b"\0\0\0":
        end = 8 + int.from_bytes(data[4:8], "big")
        text, data = text + data[8:end], data[end:]
    return (text + data).decode(errors="replace")


def containers(engine: Server, job_id: str) -> list[str]:
    """Give the ids of the containers of one job."""
    query = urlencode({"all": 1, "filters": json.dumps({"label": [f"{LABEL}={job_id}"]})})
    return [found["Id"] for found in json.loads(engine.ask("GET", f"/containers/json?{query}")[1])]


def linked(daemon: Server) -> list[dict[str, Any]]:
    """Give the other nodes that a daemon is linked with."""
    body = b'{"jsonrpc":"2.0","method":"NodeService.List","id":1}'
    nodes = rpc(daemon, body)["nodes"]
    return [node for node in nodes if node["state"] == "alive" and not node["self"]]


def follow(daemon: Server, status: bytes, *, quiet: bool = False) -> dict[str, Any]:
    """Show each step of a job as it happens, until it is finished or time is up."""
    job: dict[str, Any] = {}
    shown = 0

    def finished() -> bool:
        nonlocal job, shown
        job = rpc(daemon, status)
        for entry in [] if quiet else job["history"][shown:]:
            reason = f" ({entry['reason']})" if entry.get("reason") else ""
            say(f"  {entry.get('phase') or entry['status'].replace('pending', 'queued')}{reason}")
        shown = len(job["history"])
        return job["status"] in ("complete", "failed", "cancelled", "lost")

    wait_until(finished, 120)
    return job


def container_says(engine: Server, job_id: str) -> str:
    """Give the last line that the job's container has written so far."""
    line = ""

    def written() -> bool:
        nonlocal line
        for found in containers(engine, job_id):
            path = f"/containers/{found}/logs?stdout=1&stderr=1&tail=1"
            line = demultiplex(engine.ask("GET", path, limit=5)[1]).strip()
        return bool(line)

    wait_until(written, 3)
    return line or "nothing yet"


def demo(*, keep: bool) -> int:
    """Take one container through the queue, with the README's own calls, and show each step."""
    readme = (ROOT / "README.md").read_text()
    create = readme_call(readme, "ContainerService.Create")
    example = readme_call(readme, "ContainerService.Status")
    environment(dev=False)
    job_id = ""
    with Undo() as undo:
        engine = engine_ready(undo)
        image_ready(undo, engine)
        link = f"127.0.0.1:{free_port()}"
        settings = {"CONTAINER_MANAGER_SECRET": os.urandom(32).hex()}

        def remove() -> None:
            for found in containers(engine, job_id) if job_id else []:
                engine.ask("DELETE", f"/containers/{found}?force=1&v=1", limit=30)

        # Noted before the daemons are started, thus done when they can make no more containers.
        undo.add(remove, f"docker rm -fv $(docker ps -aq --filter label={LABEL}=JOB)")

        def start(*flags: str) -> tuple[Server, Path]:
            directory, node = work_directory(undo), Server(f"http://127.0.0.1:{free_port()}")
            command = [PYTHON, "-m", "container_manager", "--listen-address", "127.0.0.1"]
            command += ["--port", node.url.rpartition(":")[2], "--docker-host", engine.url]
            command += ["--data-dir", str(directory / "data"), "--no-mdns", *flags]
            serve(undo, command, directory, lambda: node.answers("/readyz"), settings)
            return node, directory

        daemon, directory = start("--p2p-port", link.rpartition(":")[2])
        other, _ = start("--p2p-port", "0", "--peer", link)
        wait_until(lambda: len(linked(daemon)) == 1, 30)
        say(f"Two nodes with one secret: {daemon.url} and {other.url}")
        say("Sending the first one the README's ContainerService.Create")
        with SIGNALS.held():
            job_id = rpc(daemon, create)["job_id"]
        say(f"Job {job_id}")
        status = UUID.sub(job_id, example.decode())
        job = follow(daemon, status.encode())
        complete = job["status"] == "complete"
        if complete:
            say(f"Its container says: {container_says(engine, job_id)}")
            told = follow(other, status.encode(), quiet=True)
            same = told["container"]["id"] == job["container"]["id"]
            say(
                f"The second node says: {told['status']}, {'the same' if same else 'another'}"
                " container, of the first node"
            )
        else:
            print(json.dumps(job, indent=2), file=sys.stderr)
            show_log(directory)
        print(f"\nTo try next{'' if keep else ', after `python3 run.py demo --keep`'}:")
        listing = '{"jsonrpc":"2.0","id":1,"method":"ContainerService.List","params":{}}'
        for node, body in ((other, " ".join(status.split())), (daemon, listing)):
            print(f"  curl -s {node.url}/jrpc -H 'Content-Type: application/json' -d '{body}'")
        print(f"  curl -s {daemon.url}/metrics")
        print(f"  docker ps -a --filter label={LABEL}={job_id}\n")
        if keep:
            steps = [step.replace("=JOB", f"={job_id}") for step in undo.forget()]
            print("All is left running. To stop it and clean up:", *steps, sep="\n  ")
    if not complete:
        raise ProblemError(
            f"The job is {job['status']}, not complete.", "Its status and the daemon's log: above."
        )
    return 0


# --- test, bench, soak ---


def registry_ready(undo: Undo, command: str) -> str:
    """Start an image registry on loopback; give its host and port."""
    directory, address = work_directory(undo), f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(directory)}, "delete": {"enabled": True}}
    config = {"version": "0.1", "storage": storage, "http": {"addr": address}}
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML as well.
    registry = Server(f"http://{address}")
    command_line = [command, "serve", str(directory / "config.yml")]
    serve(undo, command_line, directory, lambda: registry.answers("/v2/"))
    say(f"Registry: {address}")
    return address


PYTEST, UNIT_TESTS, ON_PODMAN = "pytest", "pytest tests/unit", "pytest on Podman"
CLUSTER_TESTS = "pytest of the cluster and of restarts"
E2E = "e2e_test.sh"
# What is asked of an engine is run against Podman, too. Left out is what needs no engine, or only
# one that is away; what tries the tests' own tools; what compares with Docker's own client; the
# long tests of pulls, of which others have some; of matrices and of what takes long, what is the
# same with every engine, so that all takes some five minutes.
_TESTS = "tests/integration/test_"
_OTHER_TESTS = ("backup", "disk", "http", "malformed", "power_cut", "pulls", "registry_proxy")
_OTHER_TESTS += ("spec_engine", "start", "support", "systemd")
# Links, networks and what nodes tell each other, where the engine matters little.
_CLUSTER = ("calls", "cluster", "cluster_faults", "cluster_mdns", "discovery", "link", "netns")
_CLUSTER += ("replication",)
PODMAN_TESTS = (
    "tests/integration",
    *(f"--ignore={_TESTS}{name}.py" for name in (*_OTHER_TESTS, *_CLUSTER)),
    f"--deselect={_TESTS}control.py::test_cancel_while_the_engine_works_leaves_nothing[60-",
    f"--deselect={_TESTS}deploy.py::test_retries_without_a_pause_to_speak_of_do_no_harm",
    f"--deselect={_TESTS}restart.py::test_killed_at_each_commit",
    f"--deselect={_TESTS}restart.py::test_many_jobs_and_many_kills",
    *(f"--deselect={_TESTS}restart.py::test_killed_at_each_engine_call[{n}-" for n in (1, 2)),
)


def podman_settings(directory: Path) -> dict[str, str]:
    """Write Podman's configuration; give the variables that name it.

    Nothing in it is shared with a Podman that the machine may have for itself, and neither systemd
    nor an interface is needed. Source: containers.conf(5), containers-registries.conf(5).
    """
    network, registries = directory / "networks", directory / "registries.conf"
    # Podman's default limits fail where root may not raise its own.
    containers_conf = f"""
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = {json.dumps(str(directory / "tmp"))}
[network]
network_config_dir = {json.dumps(str(network))}
default_subnet_pools = [{{"base" = "198.19.0.0/16", "size" = 24}}]
"""
    network.mkdir()
    (directory / "setup.conf").write_text(containers_conf)
    # The network that is there by itself has the interface that the machine's Podman has, too.
    name = f'default_network = "{directory.name}"\n'
    (directory / "containers.conf").write_text(containers_conf + name)
    # Without a port it stands for every port.
    registries.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    return {
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }


def podman_ready(undo: Undo, command: str) -> Server:
    """Start Podman's service.

    It has directories, a configuration and a network of its own. Podman's rules in the packet
    filter stay, empty, as dockerd's do.
    """
    directory = work_directory(undo)
    settings = podman_settings(directory)
    podman = [command, "--root", str(directory / "root"), "--runroot", str(directory / "run")]
    podman += ["--storage-driver", "vfs"]  # leaves no mounts, and needs nothing of the kernel

    def set_up(*arguments: str) -> int:
        env = server_environment({**settings, "CONTAINERS_CONF": str(directory / "setup.conf")})
        return subprocess.run(
            [*podman, *arguments], env=env, stdout=subprocess.DEVNULL, check=False
        ).returncode

    def remove() -> None:
        set_up("rm", "--all", "--force", "--time", "0")
        set_up("network", "rm", "--force", directory.name)

    with SIGNALS.held():
        undo.add(remove, f"{' '.join(podman)} rm --all --force")
        if set_up("network", "create", directory.name) != 0:
            raise ProblemError("Podman cannot make a network.", "See its message above.")
    engine = Server(f"unix://{directory / 's'}")
    service = [*podman, "system", "service", "--time=0", engine.url]
    serve(undo, service, directory, functools.partial(engine.answers, "/_ping"), settings)
    say(f"Podman: {engine.url}")
    return engine


class Aside:
    """Steps that run one after the other beside those in the foreground, and are shown after them.

    Most tests wait for something most of the time, so two at a time take little longer than one.
    """

    def __init__(self, undo: Undo, steps: Mapping[str, tuple[Sequence[str], Mapping[str, str]]]):
        """Begin with the first one."""
        self.verdicts: dict[str, str] = {}
        self._directory = work_directory(undo)
        self._left = dict(steps)
        self._child: subprocess.Popen[bytes] | None = None
        self._name, self._began = "", 0.0
        undo.add(self._end, "kill the tests that are left")
        self.look()

    def look(self) -> bool:
        """See whether a step has ended, and begin the next; whether there is still one."""
        if self._child is not None:
            if (code := self._child.poll()) is None:
                return True
            self._child = None
            self.verdicts[self._name] = _verdict(self._name, code, self._began)
        if not self._left:
            return False
        self._name = next(iter(self._left))
        self._began = time.monotonic()
        command, env = self._left.pop(self._name)
        with SIGNALS.held(), self._log(self._name).open("wb") as out:
            self._child = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, process_group=0
            )
        return True

    def finish(self) -> None:
        """Wait for the last one, and show what they have said."""
        while self.look():
            time.sleep(0.2)
        for name in self.verdicts:
            print(f"\n=== {name}", flush=True)
            sys.stdout.buffer.write(self._log(name).read_bytes())
            sys.stdout.buffer.flush()

    def _log(self, name: str) -> Path:
        return self._directory / name.replace("/", "-").replace(" ", "-")

    def _end(self) -> None:
        if self._child is not None:
            _end(self._child, signal.SIGINT, 60)


def _verdict(name: str, code: int, began: float) -> str:
    verdict = "ok" if code == 0 else "FAILED"
    return f"{name}: {verdict}, {time.monotonic() - began:.1f} s"


def has_compose() -> bool:
    """Tell whether Docker Compose is here, as a command or as a plugin of docker."""
    docker = which("docker")
    if not docker or which("docker-compose"):
        return bool(docker)
    told = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return told.returncode == 0


def steps_beside(
    undo: Undo, steps: Mapping[str, Sequence[str]], env: dict[str, str], results: dict[str, str]
) -> dict[str, tuple[Sequence[str], Mapping[str, str]]]:
    """Give the steps that run beside the tests in the foreground, with their environment.

    What cannot be run is told in `results`.
    """
    beside: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
    for name in (CLUSTER_TESTS, UNIT_TESTS):
        if name in steps:
            beside[name] = steps[name], env
    if E2E in steps and has_compose():
        # What it needs besides it makes itself: an image of Python, where no registry has one.
        beside[E2E] = steps[E2E], {**env, "DOCKER_HOST": env["CONTAINER_MANAGER_TEST_ENGINE"]}
    elif E2E in steps:
        results[E2E] = f"{E2E}: left out, since it needs docker and Docker Compose"
    if ON_PODMAN in steps:
        podman = which("podman") if os.geteuid() == 0 else None
        if not podman:
            results[ON_PODMAN] = f"{ON_PODMAN}: left out, since it needs root and Podman"
            return beside
        try:
            url = podman_ready(undo, podman).url
        except ProblemError as problem:  # the other steps' verdicts are told all the same
            print(*problem.args, sep="\n", file=sys.stderr)
            results[ON_PODMAN] = f"{ON_PODMAN}: FAILED, Podman does not start"
        else:
            own = {**env, "CONTAINER_MANAGER_TEST_ENGINE": url}
            beside[ON_PODMAN] = steps[ON_PODMAN], own
    return beside


def run_side_by_side(
    undo: Undo,
    steps: Mapping[str, Sequence[str]],
    beside: Mapping[str, tuple[Sequence[str], Mapping[str, str]]],
    env: Mapping[str, str],
) -> dict[str, str]:
    """Run steps in the foreground, and from the tests on others beside them; give the verdicts."""
    # Those of the cluster and of restarts, which are the longest, in a lane of their own, the
    # others one after the other in another.
    lanes = [
        {name: step for name, step in beside.items() if (name == CLUSTER_TESTS) is alone}
        for alone in (True, False)
    ]
    results: dict[str, str] = {}
    asides: list[Aside] = []

    def look() -> None:
        for aside in asides:
            aside.look()

    for name, command in steps.items():
        if name == PYTEST:
            asides += [Aside(undo, lane) for lane in lanes]
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        results[name] = _verdict(name, call(command, env, look), began)
    for aside in asides or [Aside(undo, lane) for lane in lanes]:
        aside.finish()
        results |= aside.verdicts
    return results


def run_steps(steps: Mapping[str, Sequence[str]]) -> int:
    """Run commands with a real engine and registry at hand, all of them, and sum up."""
    environment(dev=True)
    wanted = {"docker-registry": "docker-registry", "ip": "iproute2", "curl": "curl"}
    wanted["systemd-analyze"] = "systemd"  # the package starts nothing
    if os.geteuid() == 0:
        wanted["iptables"] = "iptables"
    if ON_PODMAN in steps and os.geteuid() == 0:
        wanted |= {name: name for name in ("podman", "netavark", "aardvark-dns")}
    if E2E in steps and not has_compose():
        wanted["docker-compose"] = "docker-compose"
    also = [package for command, package in wanted.items() if not which(command)]
    also += [] if static_busybox() else ["busybox-static"]
    if also and not which("apt-get"):
        say(f"The tests that need Debian's {', '.join(also)} are skipped")
        also = []
    results = {}
    with Undo() as undo:
        env = {**os.environ, "CONTAINER_MANAGER_TEST_ENGINE": engine_ready(undo, also).url}
        registry = which("docker-registry")
        if registry:
            env["CONTAINER_MANAGER_TEST_REGISTRY"] = registry_ready(undo, registry)
        beside = steps_beside(undo, steps, env, results)
        in_front = {n: c for n, c in steps.items() if n not in beside and n not in results}
        results |= run_side_by_side(undo, in_front, beside, env)
    print("\nSummary", *results.values(), sep="\n  ")
    return int(any(": FAILED, " in result for result in results.values()))


def steps_of(command: str, extra: Sequence[str]) -> dict[str, list[str]]:
    """Give the steps of test, bench or soak, by name."""
    tools, pytest = VENV / "bin", [PYTHON, "-m", "pytest"]
    if command == "bench":
        return {"pytest -m bench": [*pytest, "-m", "bench", "-s", "tests/bench", *extra]}
    if command == "soak":
        return {"pytest -m soak": [*pytest, "-m", "soak", "tests", *extra]}
    named = any((ROOT / argument.partition("::")[0]).exists() for argument in extra)
    of_cluster = [f"{_TESTS}{name}.py" for name in (*_CLUSTER, "restart")]
    others = ["tests/integration", "tests/bench", *(f"--ignore={path}" for path in of_cluster)]
    return {
        "ruff format --check": [str(tools / "ruff"), "format", "--check", "."],
        "ruff check": [str(tools / "ruff"), "check", "."],
        "mypy": [str(tools / "mypy")],
        "lint-imports": [str(tools / "lint-imports")],
        PYTEST: [*pytest, *([] if named else others), *extra],
        **({} if named else {CLUSTER_TESTS: [*pytest, *of_cluster, *extra]}),
        **({} if named else {UNIT_TESTS: [*pytest, "tests/unit", *extra]}),
        **({} if named else {E2E: ["./e2e_test.sh"]}),
        ON_PODMAN: [*pytest, *([] if named else PODMAN_TESTS), *extra],
    }


def main() -> int:
    """Run one command; give the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo_parser = commands.add_parser(
        "demo", help="one container through the queues of two nodes, step by step"
    )
    demo_parser.add_argument("--keep", action="store_true", help="leave everything running")
    commands.add_parser("setup", help="only make .venv/, with all that development needs")
    for name, what in (
        ("test", "every check and test, with a real engine and registry"),
        ("bench", "the measurements"),
        ("soak", "the long tests"),
    ):
        commands.add_parser(name, help=f"{what}; further arguments go to pytest")
    options, extra = parser.parse_known_args()
    if extra and options.command in ("demo", "setup"):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    SIGNALS.install()
    try:
        if options.command == "demo":
            return demo(keep=options.keep)
        if options.command != "setup":
            return run_steps(steps_of(options.command, extra))
        environment(dev=True)
        say("Ready: .venv/bin/python -m container_manager")
        return 0
    except ProblemError as problem:
        print(*problem.args, sep="\n", file=sys.stderr)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{type(error).__name__}: {error}", "Run it again.", sep="\n", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
