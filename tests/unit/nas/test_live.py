"""The live view: what it says, and that it never holds a driver up."""

from __future__ import annotations

import io
import statistics
import time
from datetime import UTC, datetime
from random import Random

import pytest
from rich.console import Console

from evaluators.accuracy.score import Accuracy
from evaluators.accuracy.training import Epoch
from nas.live.board import FIRST, Board
from nas.live.lines import Teller, progress_line
from nas.live.view import LiveView, draw, sparkline
from nas.live.watch import WatchedExecutor
from nas.live.work import Work
from studies.config import StudyConfig
from studies.executors import Job, LocalExecutor, Outcome
from studies.flight import Progress
from studies.pareto import hypervolume, non_dominated
from studies.storage import TrialRecord, TrialState, Value

NOW = datetime.now(UTC)


def config(trials: int = 40, objectives: tuple[str, ...] = ("accuracy", "params")) -> StudyConfig:
    return StudyConfig(name="n", space="s", data="d", objectives=objectives, trials=trials)


def trial(
    number: int,
    values: tuple[float, ...] = (),
    state: TrialState = TrialState.COMPLETE,
    names: tuple[str, ...] = ("accuracy", "params"),
    **more: object,
) -> TrialRecord:
    figures = {name: Value(value) for name, value in zip(names, values, strict=False)}
    settings = {"reason": None, "stage": None, "origin": {"by": "sampler"}, **more}
    return TrialRecord(
        id=number, number=number, state=state, key=f"{number:032x}", text="", decisions={},
        values=figures, rejections={}, started=NOW, ended=NOW, **settings,
    )  # fmt: skip


def progress(item: TrialRecord, wanted: int = 40) -> Progress:
    return Progress(item, item.number, wanted, {}, {})


def random_points(count: int, seed: int = 0) -> list[tuple[float, float]]:
    rng = Random(seed)
    return [
        (rng.choice([0.5, 0.7, rng.random()]), rng.randrange(1, 500) * 1.0) for _ in range(count)
    ]


def test_the_front_is_the_front_of_all_points_equal_ones_included() -> None:
    points = [*random_points(200), (0.9999, 1.0), (0.9999, 1.0)]
    board = Board(config(300))
    for number, point in enumerate(points):
        board.ended(progress(trial(number, point)))
    expected = non_dominated(points, ["max", "min"])
    front = board.snapshot().front
    assert {row.number for row in front} == set(expected)
    assert [row.values[0] for row in front] == sorted(
        (row.values[0] for row in front), reverse=True
    )


def test_the_hypervolume_is_by_the_worst_of_the_first_trials() -> None:
    points = random_points(60, seed=1)
    board = Board(config(100))
    for number, point in enumerate(points):
        board.ended(progress(trial(number, point)))
        if number + 1 == FIRST - 1:
            assert board.snapshot().volume is None
    first = points[:FIRST]
    reference = (min(p[0] for p in first), max(p[1] for p in first))
    box = (max(p[0] for p in first) - reference[0]) * (reference[1] - min(p[1] for p in first))
    volume = board.snapshot().volume
    assert volume is not None
    assert volume.reference == reference
    expected = hypervolume(points, reference, ["max", "min"]) / box
    assert volume.history[-1][1] == pytest.approx(expected)
    counts, values = zip(*volume.history, strict=True)
    assert list(values) == sorted(values), "a front never loses volume"
    assert counts[: FIRST - 1] == tuple(range(1, FIRST))
    assert volume.history[4][1] == pytest.approx(
        hypervolume(points[:5], reference, ["max", "min"]) / box
    )


def test_a_study_that_goes_on_shows_what_it_had() -> None:
    points = random_points(50)
    past = [trial(number, point) for number, point in enumerate(points)]
    whole, resumed = Board(config()), Board(config(), past[:30], spent_seconds=7.0)
    for item in past:
        whole.ended(progress(item))
    for item in past[30:]:
        resumed.ended(progress(item))
    one, other = whole.snapshot(), resumed.snapshot()
    assert one.front == other.front
    assert one.volume.history[-1] == other.volume.history[-1]
    assert other.complete == 50
    assert other.evaluation_seconds == 7.0


def test_failures_drops_and_baselines_are_told_apart() -> None:
    board = Board(config())
    for number in range(5):
        board.ended(
            progress(trial(number, state=TrialState.FAILED, reason=f"reason {number // 3}"))
        )
    board.ended(progress(trial(5, (0.1, 5.0), TrialState.DROPPED, stage="latency_ms", reason="x")))
    board.ended(progress(trial(6, (1.0, 1.0), origin={"by": "baseline", "name": "torchvision:a"})))
    board.ended(progress(trial(7, (0.2, 9.0))))
    shot = board.snapshot()
    assert shot.reasons == (("reason 0", 3), ("reason 1", 2))
    assert shot.drops == {"latency_ms": 1}
    assert [row.number for row in shot.front] == [7]
    text = render(board, 80)
    assert "3 x reason 0" in text
    assert "latency_ms 1" in text
    assert "1 complete" in text


def render(board: Board, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    console.print(draw(board.snapshot(), board.config.names, "a study"))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_view_fits_the_terminal(width: int) -> None:
    names = ("accuracy", "latency_ms[batch=256]", "params")
    board = Board(config(objectives=names))
    rng = Random(3)
    for number in range(30):
        figures = (rng.random(), rng.random() * 10, rng.randrange(10**6) * 1.0)
        board.ended(progress(trial(number, figures, names=names)))
    long = "out of memory: " + "x" * 200
    board.ended(progress(trial(31, state=TrialState.FAILED, reason=long)))
    text = render(board, width)
    assert max(map(len, text.splitlines())) <= width
    assert "30/40" in text
    more = len(board.snapshot().front) - 8
    assert text.count("#") == min(8, len(board.snapshot().front))
    assert (f"and {more} more" in text) == (more > 0)


def test_a_sparkline_steps_where_the_volume_does() -> None:
    assert (
        sparkline(((1, 0.0), (3, 0.5), (4, 1.0)), 4) == "▁▁▅█"
        or sparkline(((1, 0.0), (3, 0.5), (4, 1.0)), 4) == "▁▁▄█"
    )
    assert sparkline(((5, 0.3),), 5) == "▁"
    assert len(sparkline(((1, 0.0), (9000, 1.0)), 10_000)) == 32


class Quick:
    def __init__(self, metric: str = "quick", slot: str = "training") -> None:
        self.metrics, self.slot = (metric,), slot

    def cache_key(self, architecture: object) -> str:
        return ""

    def evaluate(self, architecture: object) -> list[object]:
        time.sleep(0.02)
        return []


def test_what_runs_is_told_from_what_waits_and_its_time_is_added() -> None:
    board = Board(config())  # one worker
    executor = WatchedExecutor(LocalExecutor(), board)
    for number in range(3):
        executor.submit(Job(number, Quick(), None, ""))
    shot = board.snapshot()
    assert (shot.running["quick"][0], shot.waiting) == (1, 2)
    assert "1 x quick for 0 s; 2 waiting" in render(board, 80)
    executor.wait()
    shot = board.snapshot()
    assert (shot.running["quick"][0], shot.waiting) == (1, 1)
    assert shot.evaluation_seconds >= 0.02
    executor.close()


def test_a_measurement_runs_beside_as_many_trainings_as_there_are_workers() -> None:
    work = Work(2)
    for number in range(3):
        work.submitted(Job(number, Quick("accuracy"), None, ""))
        work.submitted(Job(10 + number, Quick("latency_ms", "measurement"), None, ""))
    counts = {metric: count for metric, (count, _) in work.running().items()}
    assert (counts, work.waiting()) == ({"accuracy": 2, "latency_ms": 1}, 3)
    work.returned([Outcome(1, (), None, NOW, NOW), Outcome(99, (), None, NOW, NOW)])
    assert work.running()["accuracy"][0] == 2
    assert work.waiting() == 2


def test_a_trial_costs_the_driver_little_at_10000() -> None:
    rng = Random(0)
    names = ("accuracy", "latency_ms", "params")
    board = Board(config(20_000, names))
    for number in range(10_000):
        # Points on a sphere: all of them would be on the front of a hard study.
        board.ended(progress(trial(number, tuple(rng.random() for _ in names), names=names)))
    times = []
    for number in range(10_000, 10_200):
        item = progress(trial(number, tuple(rng.random() for _ in names), names=names))
        start = time.perf_counter()
        board.ended(item)
        times.append(time.perf_counter() - start)
    assert statistics.median(times) <= 2e-3


def test_the_cursor_comes_back_after_an_interrupt() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    view = LiveView(Board(config()), "a study", console)
    with pytest.raises(KeyboardInterrupt), view:
        raise KeyboardInterrupt
    text = out.getvalue()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0
    assert "a study" in text


def test_a_line_says_what_became_of_a_trial() -> None:
    good = progress_line(progress(trial(3, (0.987, 1200.0))), ("accuracy", "params"))
    assert good == "[3/40] trial 3 00000000 accuracy 98.7%, params 1,200"
    bad = progress_line(
        progress(trial(4, state=TrialState.FAILED, reason="it diverged")), ("accuracy",)
    )
    assert bad.endswith("failed: it diverged")


def test_a_long_training_says_now_and_then_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    teller = Teller("[1/3] seed 0", epochs=100)
    for number in range(41, 101):  # 40 epochs were in a checkpoint
        now += 3.0
        teller(Epoch(number, 0.5, Accuracy(correct=9, total=10)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 14, "each 12 s of 180, and not the last"
    expected = "[1/3] seed 0: epoch 44/100, loss 0.500, validation 90.0%, about 2 min 48 s left"
    assert lines[0] == expected
