"""Where evaluations run: one small protocol, and an executor in this process."""

from studies.executors.local import LocalExecutor
from studies.executors.protocol import Executor, Job, Outcome

__all__ = ["Executor", "Job", "LocalExecutor", "Outcome"]
