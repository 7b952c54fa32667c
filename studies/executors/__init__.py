"""Where evaluations run: one small protocol, an executor in this process and one of processes."""

from studies.executors.local import LocalExecutor
from studies.executors.outbox import Outbox
from studies.executors.pool import PoolExecutor
from studies.executors.protocol import Executor, Job, Limits, Outcome, WorkerState

__all__ = [
    "Executor",
    "Job",
    "Limits",
    "LocalExecutor",
    "Outbox",
    "Outcome",
    "PoolExecutor",
    "WorkerState",
]
