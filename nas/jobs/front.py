"""The job of ``nas front``: the front tested, written as table and page, and confirmed by seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dashboards.report import write_report
from nas.figures import number
from nas.jobs.common import Json, chosen_study, front_table, point_json
from nas.jobs.confirm import confirm_point
from nas.tables import table
from studies.again import SHOWN, gaps, measure_again
from studies.config import StudyConfig
from studies.front import FrontPoint, baselines, finish_front, write_front_csv
from studies.front import front as read_points
from studies.metrics import QUALITIES, quality_of
from studies.workspace import Workspace

_ALSO = (*QUALITIES, *(f"test_{name}" for name in QUALITIES), "latency_ms", "params", "macs")
"""Metrics that are shown though they are no objectives."""


def front(run: Path, study: str | None, *, confirm: int = 0) -> Json:
    """Test the points of a front and write its table and page into the run's directory.

    Args:
        run: its directory.
        study: where the run holds several.
        confirm: seeds that every point is trained from; 0: no more than the search did.
    """
    with Workspace.of(run).open(create=False) as repository:
        name = chosen_study(repository, run, study)
        config = StudyConfig(**repository.study(name).config)
    trained = quality_of(config.names) is not None
    if trained:
        finish_front(run, name)
    points = measure_again(run, name) if trained else read_points(run, name)
    write_front_csv(points, run / "front.csv")
    page = write_report(run, name, run / "front.html")
    result: Json = {
        "study": name,
        "objectives": list(config.names),
        "points": [point_json(point) for point in points],
        "baselines": [point_json(point) for point in baselines(run, name)],
        "gaps": [str(gap) for gap in gaps(points)],
        "written": [str(run / "front.csv"), str(page)],
    }
    if confirm:
        result["confirmed"] = _confirm(run, config, points, confirm)
    return result


def front_text(result: Json) -> str:
    """Write a front for the terminal."""
    metrics = [*result["objectives"], *(m for m in _ALSO if m not in result["objectives"])]
    for name in QUALITIES:
        metrics.remove(f"test_{name}")
        metrics.insert(metrics.index(name) + 1, f"test_{name}")
    parts = [front_table(result["points"], metrics, result["baselines"])]
    if result["gaps"]:
        lines = "\n".join(result["gaps"])
        parts.append(f"Latencies that training changed by more than {100 * SHOWN:.0f} %\n{lines}")
    if "confirmed" in result:
        parts.append(_confirmed_text(result["confirmed"]))
    parts.append(f"Written: {', '.join(result['written'])}")
    return "\n\n".join(parts)


def _confirm(
    run: Path, config: StudyConfig, points: Sequence[FrontPoint], seeds: int
) -> list[Json]:
    found = []
    for index, point in enumerate(points, start=1):
        head = f"[{index}/{len(points)}] trial {point.trial} {point.key[:8]}"
        found.append(confirm_point(run, config, point, seeds, head))
    return found


def _confirmed_text(confirmed: Sequence[Json]) -> str:
    if not confirmed:
        return "There is no point to confirm."
    seeds, metric = len(confirmed[0]["seeds"]), confirmed[0]["metric"]
    share = metric == "accuracy"
    rows = [
        [
            item["key"][:8],
            str(item["trial"]),
            number(metric, item["searched"]),
            _spread(item["validation"], share),
            _spread(item["test"], share),
            _signed(item["luck"], share),
            _signed(item["gap"], share),
        ]
        for item in confirmed
    ]
    header = ["key", "trial", "search", "validation", "test", "luck", "val-test"]
    mean_luck = sum(item["luck"] for item in confirmed) / len(confirmed)
    mean_gap = sum(item["gap"] for item in confirmed) / len(confirmed)
    unit, points = (", in %", " in points") if share else (f" of {metric}", f" in {metric}")
    return (
        f"Confirmed with {seeds} seeds: mean and standard deviation{unit}\n"
        f"{table(header, rows)}\n"
        f"Selection bias{points}: the search saw {_signed(mean_luck, share)} beyond the mean over "
        f"seeds (luck);\nvalidation is {_signed(mean_gap, share)} above test (val-test)."
    )


def _spread(summary: Json, share: bool) -> str:
    scale, digits = (100, 1) if share else (1, 3)
    text = f"{scale * summary['mean']:.{digits}f}"
    deviation = summary["deviation"]
    return text if deviation is None else f"{text} +- {scale * deviation:.{digits}f}"


def _signed(value: float, share: bool) -> str:
    return f"{100 * value:+.1f}" if share else f"{value:+.3f}"
