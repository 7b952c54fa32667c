"""Measuring from Python: networks on the device, each figure paid once a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.device import detect
from nas.jobs.measurements import Asked, run_of
from nas.jobs.measuring import networks_of
from search_spaces.architecture import Architecture
from search_spaces.space import Space

if TYPE_CHECKING:
    from studies.measuring import Measurement


def measure(
    what: Asked | Sequence[Asked],
    metrics: Sequence[str] = ("latency_ms",),
    *,
    out: Path | str | None = None,
    trials: int = 20,
    seed: int = 0,
    data: str = "digits",
    repeat: int = 1,
    device: str | None = None,
    on_figure: Callable[[Measurement], None] | None = None,
) -> list[Measurement]:
    """Measure networks into a run's record; what is there already is not measured again.

    Args:
        what: one or several of: an architecture, a space to draw networks of, or what
            ``nas measure`` takes for either.
        metrics: ``latency_ms``, ``energy_mj``, ``peak_memory_mb``, with their conditions.
        out: directory of the run; as ``nas measure`` chooses it by default.
        trials: random networks of each space.
        seed: of the draws.
        data: that the networks of a space are made for.
        repeat: measurements that a figure is the mean of.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; by default a GPU where there is one.
        on_figure: told of each figure as it comes.

    Returns:
        the figures, network by network; one that could not be had says why.

    Raises:
        NasError: a name is unknown, the device is not there, or the record cannot be used.
    """
    from studies.measuring import measure as measure_networks

    asked = [what] if isinstance(what, str | Space | Architecture) else list(what)
    target = detect(device)
    networks, _ = networks_of(asked, data=data, trials=trials, seed=seed)
    run = run_of(asked, None if out is None else Path(out))
    return measure_networks(
        networks, metrics, run, device=target, repeat=repeat, on_figure=on_figure
    )
