"""The command line: the commands, and how each ends.

Results go to standard output (with ``--json`` as one document), progress to standard error. Exit
codes: 0 done, 1 a check did not pass or a study ended without a complete trial, 2 the input cannot
be used (one line says why), 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import typer

try:
    from kernels.errors import NasError
except ImportError as problem:
    sys.exit(
        f"nas: the name 'kernels' imports another package ({problem}). Hugging Face has one of "
        "that name: use a virtual environment for paretonas alone."
    )

from nas.commands import bench, describe, pages, proxies, run, studies
from nas.commands.measure import measure
from nas.commands.search import SearchCommand, search

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=False,
    rich_markup_mode=None,  # plain help: importing rich would double the time to the first line
    pretty_exceptions_enable=False,
    help="Hardware-aware architecture search with measured latency.",
    epilog="Exit codes: 0 done, 1 a check did not pass, 2 bad input, 130 interrupted. Every "
    "command takes --json.",
)
app.command(cls=SearchCommand, short_help="Search a space, or go on with it.")(search)
app.command(short_help="Size, costs and limits of a space.")(describe.profile)
app.command(short_help="Measure networks; list, export figures.")(measure)
app.command(short_help="Test the front; write it as CSV and page.")(run.front)
app.command(short_help="Show a study, or one trial.")(run.show)
app.command(short_help="Train one network from several seeds.")(run.train)
app.add_typer(studies.app, name="studies", short_help="List, compare, export, delete studies.")
app.command(short_help="Write points as plain PyTorch, checked.")(run.export)
app.command(short_help="Serve a run's pages to the browser.")(pages.dashboard)
app.command(short_help="Write a study's pages into one file.")(pages.report)
app.command(short_help="List spaces and their sizes.")(describe.spaces)
app.add_typer(bench.app, name="bench", short_help="Measure candidates, records, samplers, kernels.")
app.add_typer(proxies.app, name="proxies", short_help="Rank and improve without training.")
app.command(short_help="Check this machine and installation.")(describe.doctor)


def main() -> None:
    """Run the command line; an error of the user's is one line and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_run(sys.argv[1:] or ["--help"]))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="nas", standalone_mode=False)
    except NasError as problem:
        return _say(str(problem), 2)
    except typer.Abort:
        return _say("stopped, nothing was done.", INTERRUPTED)
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:  # a file that is in the way, a disk that is full
        return _say(f"{problem}; check the path, your rights to it, and the room on its disk.", 2)
    except Exception as problem:
        if not isinstance(problem, _USAGE_ERRORS):
            raise
        return _say(_one_line(problem), 2)
    return _interrupted(arguments) if code == INTERRUPTED else int(code or 0)


# What typer raises for arguments it cannot use has no public name in all of its releases.
_USAGE_ERRORS = tuple(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def _one_line(problem: Exception) -> str:
    text: str = problem.format_message()  # type: ignore[attr-defined]
    context = getattr(problem, "ctx", None)
    path = context.command_path if context is not None else "nas"
    return f"{' '.join(text.split())} See '{path} --help'."


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted(arguments: list[str]) -> int:
    if arguments[:1] in (["search"], ["measure"]):
        return _say("stopped; the record is in order, the same command goes on.", INTERRUPTED)
    return _say("stopped.", INTERRUPTED)


def _say(line: str, code: int) -> int:
    print(f"nas: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201
    return code
