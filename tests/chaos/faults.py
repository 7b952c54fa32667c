"""Faults by name, each of which says whether it struck."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from random import Random

from tests.chaos.world import World, kill, say

Fault = Callable[[World, Random], bool]


def driver(world: World, rng: Random) -> bool:
    """kill -9 of a driver."""
    return rng.choice(world.studies).kill()


def worker(world: World, rng: Random) -> bool:
    """kill -9 of a process that evaluates."""
    found = world.worker_processes()
    return bool(found) and kill(rng.choice(found))


def station(world: World, rng: Random) -> bool:
    """kill -9 of an actor."""
    found = world.stations()
    return bool(found) and kill(rng.choice(found))


def node(world: World, rng: Random) -> bool:
    """kill -9 of all processes of a node; another one joins a little later."""
    if world.nodes is None:
        return False
    killed = world.nodes.kill_one(rng.randrange(8))
    time.sleep(rng.uniform(0, 8))
    world.nodes.fill()
    return killed


def server(world: World, rng: Random) -> bool:
    """kill -9 of the database server with all its processes; it is started again after a while."""
    if world.server is None:
        return False
    world.server.kill()
    time.sleep(rng.uniform(0, 10))
    world.server.start()
    return True


def disk(world: World, rng: Random) -> bool:
    """The workspace's disk is full for a while."""
    if not world.disk.mounted:
        return False
    world.disk.fill()
    time.sleep(rng.uniform(2, 6))
    world.disk.free()
    return True


def server_disk(world: World, rng: Random) -> bool:
    """The database's disk is full for a while; a server that gave up is started again."""
    if world.server is None or world.server_disk is None or not world.server_disk.mounted:
        return False
    world.server_disk.fill()
    time.sleep(rng.uniform(2, 6))
    world.server_disk.free()
    if world.server.pid() is None:
        world.server.start()
    return True


CLUSTER: dict[Fault, int] = {
    driver: 5,
    worker: 4,
    station: 3,
    node: 2,
    server: 3,
    disk: 1,
    server_disk: 1,
}
LOCAL: dict[Fault, int] = {driver: 5, worker: 5, disk: 2}


def strike(
    world: World,
    faults: dict[Fault, int],
    *,
    seconds: float,
    least: int,
    every: float,
    rng: Random,
) -> Counter[str]:
    """Break something at random moments, for a while and so often; return how often each struck."""
    struck: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end or struck.total() < least:
        pause = time.monotonic() + rng.expovariate(1 / every)
        while time.monotonic() < pause:
            world.see_to_drivers()
            time.sleep(0.2)
        (fault,) = rng.choices(list(faults), weights=list(faults.values()))
        if fault(world, rng):
            struck[fault.__name__] += 1
            say(f"{time.strftime('%H:%M:%S')} {fault.__name__} {struck.total()}")
    return struck
