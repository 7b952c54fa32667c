"""Where a study runs: on which device, and in this process, in others, or on a cluster."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from evaluators.accuracy.data import load_dataset
from evaluators.accuracy.data.node import node_name, packed
from kernels.device import Device, alike, detect
from kernels.errors import NasError
from studies.config import StudyConfig
from studies.executors import Executor, Limits, LocalExecutor, Outbox, PoolExecutor
from studies.workspace import Workspace

_DRAIN_SECONDS = 0.5
"""What kernels that a stopped training has queued on a GPU may take, before a measurement."""
_ATTEMPTS = 3
_SILENCE_SECONDS = 600.0
"""After how long without a driver a station on a cluster ends."""


def find_device(config: StudyConfig) -> Device:
    """Return the device that candidates are measured on: of this machine, or of the cluster's.

    Raises:
        NasError: there is no such device, or no such cluster.
    """
    if config.ray is None or config.device == "cpu":
        return detect(config.device)
    from studies.executors.ray import cluster

    cluster.connect(config.ray)
    return cluster.detect_device(config.device)


def make_executor(config: StudyConfig, place: Workspace) -> Executor:
    """Return the executor that settings ask for.

    Raises:
        NasError: there is no such device, no such cluster, or memory is to be limited and no worker
            process is there to be limited.
    """
    seconds = None if config.trial_minutes is None else 60 * config.trial_minutes
    if config.workers == 0:
        if config.trial_memory_mb is not None:
            raise NasError(
                "Setting 'trial_memory_mb': only a worker process can be limited; set workers to "
                "1 or more, or leave the limit out."
            )
        return LocalExecutor(seconds)
    limits = Limits(
        seconds=seconds,
        memory_bytes=None if config.trial_memory_mb is None else config.trial_memory_mb << 20,
    )
    device = find_device(config)
    if config.ray is not None:
        return _on_cluster(config, place, limits, device)
    return make_pool(
        place,
        device,
        workers=config.workers or 1,
        threads=config.threads,
        limits=limits,
        spread=config.device in (None, "cuda"),
    )


def make_pool(
    place: Workspace,
    device: Device,
    *,
    workers: int = 1,
    threads: int = 1,
    limits: Limits | None = None,
    spread: bool = False,
) -> PoolExecutor:
    """Return an executor of processes of this machine, which begin when they are needed.

    Args:
        place: the workspace; results lie there until they are recorded.
        device: that is measured and trained on.
        workers: processes that train; one more measures.
        threads: CPU threads of a process.
        limits: of each job.
        spread: whether all GPUs of the device's model are trained on, in turn.
    """
    on_gpu = device.kind == "cuda"
    # Within a worker its GPU is the first, so only where that is meant.
    any_gpu = spread and on_gpu and device.index == 0
    gpus = [f"GPU-{item.uuid}" for item in alike(device)] if any_gpu else []
    return PoolExecutor(
        workers,
        limits=limits,
        outbox=Outbox(place.root / "outbox"),
        attempts=_ATTEMPTS,
        threads=threads,
        settle=_DRAIN_SECONDS if on_gpu else 0.0,
        gpus=gpus if len(gpus) > 1 else on_gpu,
        device=device,
    )


def _on_cluster(config: StudyConfig, place: Workspace, limits: Limits, device: Device) -> Executor:
    from studies.executors.ray import cluster
    from studies.executors.ray.asking import Needs
    from studies.executors.ray.executor import RayExecutor
    from studies.executors.ray.station import Luggage, StationSettings

    assert config.ray is not None, "the caller looked"
    owns = cluster.connect(config.ray)
    on_gpu = device.kind == "cuda"
    identity = place.identity()
    dataset = load_dataset(config.data)
    training = Needs(
        cpus=config.threads,
        gpus=config.gpus if on_gpu else 0.0,
        memory_bytes=limits.memory_bytes,
        accelerator=cluster.accelerator(device) if on_gpu else None,
    )
    if on_gpu:
        measuring = Needs(cpus=0, gpus=1, accelerator=training.accelerator)
    else:
        measuring = Needs(cpus=0, node=cluster.measuring_node())
    return RayExecutor(
        StationSettings(
            root=str(place.root.absolute()),
            identity=identity,
            path=tuple(sys.path),
            threads=config.threads,
            limits=limits,
            attempts=_ATTEMPTS,
            gpus=on_gpu,
            device=None if on_gpu else device,
            silence=_SILENCE_SECONDS,
            release=_release(),
        ),
        namespace=f"{cluster.NAMESPACE}/{identity[:12]}/{config.name}",
        training=training,
        measuring=measuring,
        workers=config.workers,
        luggage=[Luggage(node_name(dataset.fingerprint), *packed(dataset))],
        measurers=cluster.count_gpus() if on_gpu else 1,
        attempts=_ATTEMPTS,
        owns=owns,
    )


def _release() -> str:
    try:
        return version("paretonas")
    except PackageNotFoundError:  # run from the source tree
        return "unknown"
