"""An evaluator for worker processes that notes in a file what it finished; imports no torch."""

import errno
import os
import random
import time
from pathlib import Path

from evaluators.protocol import Measured


class Diary:
    """Gives a function of the network's text as ``accuracy``, after a random while."""

    slot = "training"

    def __init__(self, file, *, metric="accuracy", seconds=0.02, slot="training"):
        self.metrics = (metric,)
        self.slot = slot
        self.file, self.seconds = Path(file), seconds

    def cache_key(self, architecture):
        return f"diary-{self.metrics[0]}-{architecture.key}"

    def evaluate(self, architecture):
        begin = time.time()
        time.sleep(random.expovariate(1 / self.seconds))
        value = int(architecture.key[:8], 16) / 16**8
        line = f"{self.metrics[0]} {architecture.key} {begin} {time.time()}\n"
        file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)
        return [Measured(self.metrics[0], value, value - 0.1, value + 0.1)]

    def finished(self):
        """The metric and key of everything that was finished."""
        if not self.file.exists():
            return []
        return [tuple(line.split()[:2]) for line in self.file.read_text().splitlines()]


class Faulty:
    """Goes wrong for one network in three, in a way given by name."""

    metrics = ("accuracy",)
    slot = "training"

    def __init__(self, how):
        self.how = how

    def cache_key(self, architecture):
        return f"faulty-{self.how}-{architecture.key}"

    def evaluate(self, architecture):
        if int(architecture.key[:4], 16) % 3 == 0:
            return getattr(self, f"_{self.how}")()
        return [Measured("accuracy", 0.5)]

    def _raise(self):
        raise ValueError("a user's bug")

    def _nan(self):
        return [Measured("accuracy", float("nan"))]

    def _exit(self):
        os._exit(3)

    def _memory(self):
        raise MemoryError

    def _hang(self):
        time.sleep(600)

    def _grow(self):
        kept = []
        while True:
            kept.append(bytearray(20 << 20))
            time.sleep(0.05)


class NoRoom:
    """Cannot keep what it found."""

    metrics = ("accuracy",)
    slot = "training"

    def cache_key(self, architecture):
        return f"no-room-{architecture.key}"

    def evaluate(self, architecture):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
