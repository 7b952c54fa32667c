"""The sampler ``ehvi``: Gaussian processes and expected hypervolume improvement.

It looks for the front of a discrete, conditional space with few paid evaluations::

    domain ── design ──────────────────────────┐
       │                                       ├──> the next candidate
       └───── pool ── kernel ── process ── boxes
                        scale ─────┘

``domain`` says what a point is: drawing one, changing one, its features, among which is how it
stands among random ones by scores of its description (``standing``). ``design`` chooses the
first points. Later ``pool`` holds points that could be next; ``process`` predicts what each is
worth, on the ``scale`` of the objectives, from how alike points are (``kernel``); and ``boxes``
says by how much the front can be expected to grow. ``model`` joins these for one ask, ``search``
from ask to ask. The two doors are ``drafter``, for studies, and ``optuna_sampler``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.samplers.ehvi.optuna_sampler import EhviSampler

__all__ = ["EhviSampler"]


def __getattr__(name: str) -> Any:
    """Load Optuna only where its sampler is asked for."""
    if name == "EhviSampler":
        from studies.samplers.ehvi.optuna_sampler import EhviSampler

        return EhviSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
