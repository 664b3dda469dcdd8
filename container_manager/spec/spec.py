"""The whole of what is to run: one container, and how its deployment goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, Field, JsonValue, model_validator

from container_manager.spec.health import Healthcheck
from container_manager.spec.hosts import Dns, ExtraHosts, HostName
from container_manager.spec.image import Credential, Image, Platform
from container_manager.spec.labels import Env, Labels
from container_manager.spec.logs import LogForm
from container_manager.spec.model import MAX_SECONDS, Model, Seconds
from container_manager.spec.mounts import TmpfsMounts, Volumes
from container_manager.spec.names import ContainerName
from container_manager.spec.networks import Links, NetworkMode, Networks
from container_manager.spec.ports import Ports
from container_manager.spec.process import (
    Arguments,
    Entrypoint,
    StopSignal,
    StopTimeout,
    User,
    WorkingDir,
)
from container_manager.spec.resources import Cpus, Cpuset, Pids
from container_manager.spec.restart import RestartForm, Retry
from container_manager.spec.size import Memory, Size

MAX_USER_DATA = 64 * 1024

# Fields that are not right or wrong by themselves alone. Where a spec sets none of them there is
# nothing to compare, which is found out by one look: Create is asked for thousands of times a
# second, mostly by specs of a few fields.
_RELATED = {
    *("run_timeout", "retry", "restart_policy", "remove_on_exit", "keep"),
    *("network_mode", "links", "volumes", "tmpfs"),
}


def _user_data(value: Any) -> Any:
    try:
        text = orjson.dumps(value)
    except TypeError:
        raise ValueError("is no JSON, or a number in it has more than 64 bits") from None
    if len(text) > MAX_USER_DATA:
        raise ValueError("is more than 64 KiB of JSON")
    return value


UserData = Annotated[JsonValue, AfterValidator(_user_data)]
Keep = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


class Spec(Model):
    """What is to run: one container, given by its image and how it is started."""

    # What runs

    image: Image = Field(
        description="The image: [registry/]name[:tag][@digest]. Without a tag it is `latest`.",
        examples=["nginx"],
    )
    entrypoint: Entrypoint | None = Field(
        default=None,
        description="What runs instead of the image's own entrypoint: a program, or a list with "
        'its first arguments. "" or [] is none at all.',
    )
    arguments: Arguments = Field(
        default_factory=list,
        description="What follows the image in `docker run`: it replaces the image's own command.",
    )
    env: Env = Field(
        default_factory=dict,
        description="Environment variables. Their values are sealed on disk and shown nowhere.",
    )
    user: User | None = Field(
        default=None, description="Who it runs as: a name or number, and a group after ':'."
    )
    working_dir: WorkingDir | None = Field(
        default=None, description="Where in the container it is started: an absolute path."
    )
    init: bool | None = Field(
        default=None,
        description="Whether a small init runs first, which passes on signals and reaps "
        "processes; as the engine is set, where it is not said.",
    )
    stop_signal: StopSignal | None = Field(
        default=None, description="What asks it to end: a signal's name or number."
    )
    stop_timeout: StopTimeout | None = Field(
        default=None,
        description="Whole seconds that it has to end, before it is killed; 10 where not said.",
    )

    # What it is called

    name: ContainerName | None = Field(
        default=None, description="The container's name; without one it is `cm-` and a short id."
    )
    labels: Labels = Field(
        default_factory=dict,
        description="Labels for the container; ContainerService.List filters by them.",
    )
    user_data: UserData | None = Field(
        default=None,
        description="Anything in JSON, up to 64 KiB, that is kept with the job. The container "
        "does not get it. It is not sealed.",
    )

    # What it may take

    cpus: Cpus | None = Field(
        default=None, description="How many processors' time it may take: 0.5 is half of one."
    )
    cpuset: Cpuset | None = Field(
        default=None, description='The processors that it may run on: "0-3,5".'
    )
    memory: Memory | None = Field(
        default=None,
        description='The memory that it may take: bytes, or "512m", "1.5g"; at least 6m.',
    )
    shm_size: Size | None = Field(
        default=None, description="The size of /dev/shm: bytes, or a text as for memory."
    )
    pids: Pids | None = Field(
        default=None, description="How many processes and threads it may have."
    )

    # The network

    hostname: HostName | None = Field(
        default=None, description="Its own host name; the container's short id where not said."
    )
    domainname: HostName | None = Field(default=None, description="Its own domain name.")
    ports: Ports = Field(
        default=(),
        description='Ports to publish: "8080:80", "127.0.0.1:8080:80/udp", "8000-8009:80-89", '
        '"80" for any free port of the node, or objects; 1000 at most.',
    )
    publish_all: bool = Field(
        default=False, description="Publish every port that the image exposes, on any free ones."
    )
    networks: Networks = Field(
        default=(),
        description="The networks it is on, by name, each with its aliases if it has some. "
        "The first is the one that links and ports go by.",
    )
    network_mode: NetworkMode | None = Field(
        default=None,
        description='"bridge", "none", "default", or the one network\'s name; not with networks.',
    )
    dns: Dns = Field(default=(), description="Addresses of name servers.")
    extra_hosts: ExtraHosts = Field(
        default=(),
        description='Lines for /etc/hosts: "name:address", or {"name": "address"}. '
        "`host-gateway` stands for the node.",
    )
    links: Links = Field(
        default=(),
        description='Other containers of the first network by another name: "container:alias".',
    )

    # The file tree

    volumes: Volumes = Field(
        default=(),
        description='Named volumes: "data:/path", "data:/path:ro", or objects. Those that there '
        "are not yet are made, and all are kept.",
    )
    tmpfs: TmpfsMounts = Field(
        default=(),
        description='Directories in memory: "/run", "/tmp:size=64m,mode=1777", or options by path.',
    )
    read_only: bool = Field(
        default=False, description="Nothing but volumes and tmpfs can be written to."
    )

    # How its deployment goes

    type: Literal["service", "batch"] = Field(
        default="service",
        description="`service`: complete once the container is up. `batch`: complete when it ends "
        "with exit code 0.",
    )
    platform: Platform | None = Field(
        default=None, description='The platform of the image: "linux/arm64".'
    )
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When the image is pulled before the container is created."
    )
    credential: Credential | None = Field(
        default=None,
        description="The registry credential for the pull, by the name that the node has it under.",
    )
    healthcheck: Healthcheck | None = Field(
        default=None, description="How it is found out that it is well, over what its image says."
    )
    retry: Retry = Field(default=Retry(), description="How failed deployments are retried.")
    deploy_timeout: Seconds = Field(
        default=900.0,
        description="Seconds that one attempt may take from its start until the container is up, "
        "the pull included. For type batch: until it is pulled.",
    )
    run_timeout: Seconds | None = Field(
        default=None,
        description="For type batch: seconds after which a container that still runs is stopped "
        "and the job fails.",
    )

    # When it ends

    restart_policy: RestartForm | None = Field(
        default=None,
        description='When the engine starts it again: "no", "on-failure", "on-failure:3", '
        '"always", "unless-stopped", or an object. For type batch the first three.',
    )
    log_driver: LogForm | None = Field(
        default=None, description="Where its output goes: a driver, or a driver with its options."
    )
    remove_on_exit: bool = Field(
        default=False,
        description="Remove the container when it has ended and its exit is recorded.",
    )
    keep: Keep | None = Field(
        default=None,
        description="Seconds that the ended container is kept; where not said, a day for type "
        "batch, and for good for type service.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not _RELATED.isdisjoint(self.__pydantic_fields_set__) and (why := _misfit(self)):
            raise ValueError(why)
        return self


def _misfit(spec: Spec) -> str | None:
    """Why the fields do not go together, if they don't."""
    restart = "no" if spec.restart_policy is None else spec.restart_policy.name
    if spec.type != "batch":
        if spec.run_timeout is not None:
            return 'run_timeout is for jobs of "type": "batch"'
        if spec.retry.on_exit:
            return 'retry.on_exit is for jobs of "type": "batch"'
    elif restart not in ("no", "on-failure"):
        return (
            f'restart_policy {restart} would run a batch job again for ever; "retry": '
            '{"on_exit": true} tries it again when it fails'
        )
    if spec.remove_on_exit and restart != "no":
        return "remove_on_exit does not go with a restart_policy"
    if spec.remove_on_exit and spec.keep is not None:
        return "remove_on_exit does not go with keep; keep alone says how long"
    if spec.networks and spec.network_mode is not None:
        return "network_mode does not go with networks; list all networks there"
    if spec.links and (not spec.networks or spec.networks[0].name == "bridge"):
        return "links are names on a network: list one of your own first in networks"
    mounted = {mount.target for mount in spec.volumes} & {mount.target for mount in spec.tmpfs}
    return "a path is both in volumes and in tmpfs" if mounted else None
