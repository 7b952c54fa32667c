"""Starts a worker; run as a script, so that it is bound to its driver before anything is imported.

The only argument is a JSON object: ``parent`` is the driver's process id, ``path`` its search path
for modules, and ``settings`` are those of :class:`studies.executors.wire.WorkerSettings`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent dies, however that happens.

    Only Linux can, and only this reaches a process that is stopped or deep in foreign code. The
    signal also comes when the thread that started this process ends.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # It may have died before the request; then nobody is left to tell.
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Bind this process to its driver and work for it."""
    request = json.loads(sys.argv[1])
    die_with(request["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = request["path"]
    from studies.executors.wire import WorkerSettings
    from studies.executors.worker import serve

    serve(WorkerSettings(**request["settings"]))


if __name__ == "__main__":
    main()
