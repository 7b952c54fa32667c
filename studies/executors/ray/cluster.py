"""Connecting to a Ray cluster, or starting one on this machine; what it has."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

from kernels.device import Device, detect
from kernels.environment import prepare_ray
from kernels.errors import NasError

NAMESPACE = "paretonas"

_started_here = False
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster: its id, its name, and what it has in all."""

    id: str
    name: str
    cpus: float
    gpus: float


def connect(address: str) -> bool:
    """Connect this process to a cluster; once is enough.

    Args:
        address: ``local`` starts one on this machine, which ends with this process; ``auto`` takes
            the one that runs here, else starts one; or ``HOST:PORT``.

    Returns:
        whether it was started by this process.

    Raises:
        NasError: there is no such cluster, or it does not let this process in.
    """
    if "://" in address:
        raise NasError(
            f"Cannot use the Ray address {address!r}: write HOST:PORT, and run the search on a "
            "machine of the cluster."
        )
    prepare_ray()
    import ray

    global _started_here
    if ray.is_initialized():
        return _started_here
    _started_here = False
    if address == "local":
        _init("local")
        _started_here = True
        return True
    try:
        _init(address)
    except ConnectionError as problem:
        if address == "auto":
            return connect("local")
        raise NasError(
            f"No Ray cluster answers at {address!r} ({_line(problem)}); start one with 'ray start "
            "--head', or give another address."
        ) from None
    return False


def _init(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            configure_logging=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **settings,
        )
        _keep_quiet()
    except AuthenticationError as problem:
        raise NasError(
            f"The Ray cluster {address!r} does not let this process in ({_line(problem)}): put its "
            "token into ~/.ray/auth_token, or name a file of it in RAY_AUTH_TOKEN_PATH."
        ) from None
    except (ValueError, RuntimeError, OSError) as problem:
        if isinstance(problem, ConnectionError):
            raise
        raise NasError(f"Cannot use the Ray cluster {address!r}: {_line(problem)}.") from None


def _keep_quiet() -> None:
    """Have what Ray says of workers that died go to the log: it writes to standard output."""
    from ray._private import worker

    # NOTE: there is no setting for it; ray.init's log_to_driver is for what workers write.
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _to_log


def _to_log(data: Any, ignore_prefix: bool = False) -> None:
    _log.debug("%s", data)


def nodes() -> list[Node]:
    """Return the machines that are there now."""
    import ray

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in known
        if node["Alive"]
    ]


def free() -> dict[str, float]:
    """Return the resources that nobody has, as Ray names them."""
    import ray

    found: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return found


def this_node() -> str:
    """Return the id of the machine that this process is on."""
    import ray

    found: str = ray.get_runtime_context().get_node_id()
    return found


def measuring_node() -> str:
    """Return the id of the machine whose CPU is measured: this one, if it is to do any work."""
    there = nodes()
    here = this_node()
    if any(node.id == here and node.cpus >= 1 for node in there):
        return here
    return max(there, key=lambda node: node.cpus).id


def count_gpus() -> int:
    """Return how many GPUs there are now."""
    return int(sum(node.gpus for node in nodes()))


def accelerator(device: Device) -> str | None:
    """Return Ray's word for a GPU's type, if nodes with such a one say it."""
    import ray

    prefix = "accelerator_type:"
    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    types = [name.removeprefix(prefix) for name in known if name.startswith(prefix)]
    fitting = [word for word in types if word.replace("-", " ") in device.name.replace("-", " ")]
    return max(fitting, key=len, default=None)


def detect_device(name: str | None) -> Device:
    """Return the device that work on the cluster runs on; see :func:`kernels.device.detect`.

    Raises:
        NasError: there is no such device.
    """
    import ray

    try:
        device = detect(name)
    except NasError:
        if not count_gpus():
            raise
    else:
        if device.kind == "cuda" or not count_gpus():
            return device
    probe: Any = ray.remote(num_gpus=1, num_cpus=0, max_calls=1)(detect)
    found: Device = ray.get(probe.remote(name))
    return found


def own_name() -> str:
    """Name this process: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")
