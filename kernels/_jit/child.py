"""Compiles one kernel with NVRTC; run as a script, so that a crash of NVRTC stays in here.

The only argument is a directory with ``request.json``; ``kernel.cubin`` and ``result.json`` are
written beside it. No ``result.json`` means that this process died.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path


def main() -> None:
    """Compile the request and write what came of it."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sys.path[:] = request["search_path"]
    from cuda.core import Program, ProgramOptions

    log = io.StringIO()
    result = {"error": ""}
    fields = {**request["fields"], "include_path": _include_path()}
    try:
        options = ProgramOptions(name=f"{request['name']}.cu", arch=request["arch"], **fields)
        cubin = Program(request["source"], "c++", options).compile("cubin", logs=log).code
        (folder / "kernel.cubin").write_bytes(cubin)
    except Exception as error:
        result["error"] = str(error) or repr(error)
    result["log"] = log.getvalue().replace("\0", "").strip()
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _include_path() -> list[str]:
    """Return where ``cuda_fp16.h`` and the CCCL headers are, as far as they are installed."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return []
    found = (find_nvidia_header_directory(name) for name in ("cudart", "cccl"))
    return [folder for folder in found if folder]


if __name__ == "__main__":
    main()
