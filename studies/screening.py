"""How wrong the sums of layers were that a study's funnel screened latency by."""

from __future__ import annotations

from evaluators.latency.screen import LEAST_JUDGED, screen_error
from studies.config import StudyConfig
from studies.evaluation import wanted_metrics
from studies.metrics import SCREEN, parse_metric
from studies.storage import Repository


def screening_text(repository: Repository, study_id: int, config: StudyConfig) -> str | None:
    """Compare the sums of layers with what was measured; None where nothing was screened by them.

    Args:
        repository: the record.
        study_id: of the study.
        config: its settings.
    """
    names = {parse_metric(name, own=True).name: name for name in reversed(wanted_metrics(config))}
    if SCREEN not in names:
        return None
    if "latency_ms" not in names:
        return "nothing to compare with: the study measures no latency_ms"
    wanted = [names[SCREEN], "layers", names["latency_ms"]]
    _, _, values = repository.objective_rows(study_id, wanted)
    error = screen_error([(total, int(count), truth) for total, count, truth in values])
    if error is None:
        return f"not known before {LEAST_JUDGED} trials are complete"
    return f"{error}, an overhead fitted on the others"
