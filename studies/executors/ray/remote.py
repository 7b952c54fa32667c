"""The station as Ray runs it: the only part of it that knows Ray."""

from __future__ import annotations

from typing import Any

import ray

from evaluators.protocol import Slot
from studies.executors.ray.station import Greeting, Station, StationSettings

_remote: Any = ray.remote
_method: Any = ray.method


class RemoteStation(Station):
    """A station whose greetings are answered also while it works."""

    def __init__(self, settings: StationSettings, slot: Slot) -> None:
        gpus = ray.get_gpu_ids()
        device = f"GPU {', '.join(map(str, gpus))}" if gpus else "CPU"
        super().__init__(settings, slot, device, ray.get)

    @_method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def greet(self, settings: StationSettings | None = None) -> Greeting | None:
        """See :class:`Station`."""
        return super().greet(settings)

    @_method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def leave(self) -> None:
        """See :class:`Station`; Ray takes no exit but its own for a good one."""
        self.close()
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]


STATION: Any = _remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2})(
    RemoteStation
)
"""Makes actors. Who asks for one sees to it that another takes its place."""
