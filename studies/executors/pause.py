"""The pause of trainings while something is measured, by this executor or by another process."""

from __future__ import annotations

import time
from collections.abc import Iterable

from kernels.device import Device
from kernels.sign import LOOK_SECONDS, NOTICE_SECONDS, Sign
from studies.executors.handle import WorkerProcess


class Pause:
    """Stops trainings where they stand, and lets them go on.

    Args:
        device: that is measured; other processes that work on it pause too. None: it is nobody
            else's.
        settle: seconds that stopped trainings may need for work they left on a device.
    """

    def __init__(self, device: Device | None, settle: float) -> None:
        self._sign = None if device is None else Sign(device)
        self._settle = settle
        self._since: float | None = None
        self._before = 0.0
        self._yields = False

    @property
    def is_on(self) -> bool:
        """Whether trainings stand still."""
        return self._since is not None

    @property
    def is_for_others(self) -> bool:
        """Whether they do for a measurement of another process."""
        return self._yields

    @property
    def seconds(self) -> float:
        """For how long they stood still so far."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    @property
    def patience(self) -> float | None:
        """After how long to look at the sign again; None where there is none to look at."""
        return None if self._sign is None else LOOK_SECONDS

    def allows_to_measure(self) -> bool:
        """Tell whether a measurement can begin now, and keep others from theirs if so."""
        return self._sign is None or self._sign.put_up()

    def begin(self, trainings: Iterable[WorkerProcess]) -> list[WorkerProcess]:
        """Stop trainings for a measurement; return those that do not stand still."""
        if self._since is not None:
            self._yields = False
            return []
        stuck = self._stop(list(trainings))
        if self._sign is not None and self._sign.others_are_present():
            time.sleep(NOTICE_SECONDS)
        return stuck

    def end(self, trainings: Iterable[WorkerProcess]) -> None:
        """Let trainings go on, also those of other processes; not if another process measures."""
        if self._sign is not None:
            self._sign.take_down()
        if self._since is None or self._yields:
            return
        self._go_on(trainings)

    def look(self, trainings: Iterable[WorkerProcess], *, at_work: bool) -> list[WorkerProcess]:
        """Stand still while another process measures; return those that do not stand still."""
        sign = self._sign
        if sign is None or sign.is_mine:
            return []
        if at_work:
            sign.be_present()
        else:
            sign.be_absent()
        up = (at_work or self._yields) and sign.is_up()
        if up and self._since is None:
            self._yields = True
            return self._stop(list(trainings))
        if not up and self._yields:
            self._yields = False
            self._go_on(trainings)
        return []

    def close(self) -> None:
        """Give back what others could wait for."""
        if self._sign is not None:
            self._sign.close()

    def _stop(self, trainings: list[WorkerProcess]) -> list[WorkerProcess]:
        self._since = time.monotonic()
        for worker in trainings:
            worker.pause()
        stuck = [worker for worker in trainings if not worker.wait_paused()]
        if trainings and self._settle:
            time.sleep(self._settle)
        return stuck

    def _go_on(self, trainings: Iterable[WorkerProcess]) -> None:
        for worker in trainings:
            worker.resume()
        self._before, self._since = self.seconds, None
