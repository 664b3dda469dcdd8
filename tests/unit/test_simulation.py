"""Clusters of five in virtual time: whatever happens, all come to know the same."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support.simulation import Faults, Host, World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
CHUNK = 100
FIRST = int(os.environ.get("SIMULATION_SEED", "0"))
SETTLED = 5.0
"""Seconds after the network is whole again in which all nodes have to be equal."""
NOTICED = 3.0
"""Seconds in which nodes notice that links are dead, and in which links are made again."""


def play(seed: int) -> str | None:
    """A run; in what the nodes differ at its end."""
    world = World(seed)
    rng = world.random
    copies: dict[str, bytes] = {}
    for _ in range(rng.randint(20, 60)):
        host = rng.choice(list(world.hosts.values()))
        act(world, host, copies)
        world.run(rng.random() * rng.choice((0.05, 1.0)))
    if rng.random() < 0.5:
        # What one of them alone knew is gone, and the others have to get on with what they have.
        world.wipe(rng.choice(list(world.hosts.values())))
    world.heal()
    for host in list(world.hosts.values()):
        if not host.alive:
            world.start(host)
    world.run(NOTICED + SETTLED)
    return world.disagreement()


Act = Callable[[World, Host, dict[str, bytes]], None]


def create(world: World, host: Host, _: dict[str, bytes]) -> None:
    for _number in range(world.random.randint(1, 5)):
        world.create(host)


def change(world: World, host: Host, _: dict[str, bytes]) -> None:
    for _number in range(world.random.randint(1, 3)):
        world.change(host)


def share(world: World, host: Host, _: dict[str, bytes]) -> None:
    world.write_shared(host)


def part(world: World, _: Host, __: dict[str, bytes]) -> None:
    names = world.random.sample(sorted(world.hosts), len(world.hosts))
    middle = world.random.randint(1, len(names) - 1)
    world.part("".join(names[:middle]), "".join(names[middle:]))


def cut_one_way(world: World, host: Host, _: dict[str, bytes]) -> None:
    other = world.random.choice([name for name in world.hosts if name != host.name])
    world.cut_ways({(host.name, other)})


def wipe(world: World, host: Host, _: dict[str, bytes]) -> None:
    world.wipe(host)


def crash(world: World, host: Host, _: dict[str, bytes]) -> None:
    world.crash(host)


def spoil(world: World, _: Host, __: dict[str, bytes]) -> None:
    rng = world.random
    world.faults = Faults(
        lost=rng.choice((0.0, 0.3)),
        doubled=rng.choice((0.0, 0.2)),
        delay=rng.choice((0.01, 0.5)),
        reordered=rng.random() < 0.5,
    )


def heal(world: World, _: Host, __: dict[str, bytes]) -> None:
    world.heal()


def copy_or_restore(world: World, host: Host, copies: dict[str, bytes]) -> None:
    if (copy := copies.pop(host.id, None)) is not None:
        world.restore(host, copy)
    elif host.links:
        # A node that has met nobody keeps no traces of what it drops.
        copies[host.id] = world.copy(host)


ACTS: dict[Act, int] = {
    create: 20,
    change: 30,
    share: 20,
    part: 5,
    cut_one_way: 3,
    wipe: 2,
    crash: 3,
    spoil: 2,
    heal: 4,
    copy_or_restore: 3,
}
"""What can happen, and how often it does, in relation to the others."""


def act(world: World, host: Host, copies: dict[str, bytes]) -> None:
    """Something happens."""
    if not host.alive:
        world.start(host)
        return
    (happens,) = world.random.choices(list(ACTS), list(ACTS.values()))
    happens(world, host, copies)


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_all_nodes_come_to_know_the_same(first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        difference = play(seed)
        assert difference is None, f"SIMULATION_SEED={seed} SIMULATION_SEEDS=1: {difference}"
