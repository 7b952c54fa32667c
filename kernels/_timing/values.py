"""How to time, and what came out."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from kernels.errors import NasError

Cache = Literal["cold", "warm"]
Mode = Literal["eager", "graph"]
Queue = Literal["full", "open"]
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MIN_ROUNDS = 3
MIN_SAMPLES = 30
CALLS_PER_GRAPH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPolicy:
    """How a function is timed.

    Attributes:
        rounds: times every function is visited; at least 3.
        spare_rounds: most rounds taken in place of those that an observer does not count.
        samples_per_round: samples a function gives in one visit; at least 30 over all rounds.
        cache: ``"cold"``: a call finds its data outside the last-level cache (a sequence of
            functions is trusted to rotate over enough buffers, see ``cold_sets``; before a single
            function a large buffer is rewritten, outside the timed region). ``"warm"``: calls
            follow each other.
        mode: ``"graph"`` replays CUDA graphs and needs a GPU.
        queue: on a GPU, ``"full"`` hides the host: work is enqueued behind a spinning kernel, so
            the GPU never waits. ``"open"`` starts each sample on an idle GPU: launching is part
            of the time, as it is for a user of an eager network.
        calls_per_graph: calls captured in a graph, rounded up to whole turns of a sequence. A
            short kernel needs 20, lest the pause between two graphs counts; a network is many
            kernels by itself.
        min_sample_us: calls are repeated inside a sample until it lasts this long; not where a
            buffer must be rewritten before each call.
        warmup_window: samples of which the medians are compared during warm-up.
        warmup_tolerance: relative difference of successive medians that counts as stable.
        warmup_min_seconds: warm-up of one function never ends earlier.
        warmup_max_seconds: warm-up ends here although it is not stable, and the result says so.
        max_seconds: time for the samples of one function, warm-up not counted. A slow function
            gives fewer samples a round (at least 1) and the result says so.
        threads: torch's CPU threads; None leaves them as they are.
        cpus: processors the process is pinned to meanwhile; None does not pin.
        settle_seconds: before its samples of a round a function runs alone so long, untimed: the
            clocks of a GPU follow the work of the last hundredths of a second.
        seed: of the order of the functions within each round.

    Raises:
        NasError: one or more values are out of range; the message lists them all.
    """

    rounds: int = MIN_ROUNDS
    spare_rounds: int = 0
    samples_per_round: int = 10
    cache: Cache = "cold"
    mode: Mode = "eager"
    queue: Queue = "full"
    calls_per_graph: int = CALLS_PER_GRAPH
    min_sample_us: float = 200.0
    warmup_window: int = 5
    warmup_tolerance: float = 0.05
    warmup_min_seconds: float = 0.05
    warmup_max_seconds: float = 3.0
    max_seconds: float = 60.0
    settle_seconds: float = 0.0
    threads: int | None = None
    cpus: tuple[int, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            f"rounds >= {MIN_ROUNDS}": self.rounds >= MIN_ROUNDS,
            f"rounds * samples_per_round >= {MIN_SAMPLES}": (
                self.samples_per_round >= 1 and self.rounds * self.samples_per_round >= MIN_SAMPLES
            ),
            "cache 'cold' or 'warm'": self.cache in get_args(Cache),
            "mode 'eager' or 'graph'": self.mode in get_args(Mode),
            "queue 'full' or 'open'": self.queue in get_args(Queue),
            "calls_per_graph >= 1": self.calls_per_graph >= 1,
            "spare_rounds >= 0": self.spare_rounds >= 0,
            "min_sample_us > 0": self.min_sample_us > 0,
            "warmup_window >= 1": self.warmup_window >= 1,
            "0 < warmup_tolerance < 1": 0 < self.warmup_tolerance < 1,
            "0 <= warmup_min_seconds <= warmup_max_seconds": (
                0 <= self.warmup_min_seconds <= self.warmup_max_seconds
            ),
            "max_seconds > 0": self.max_seconds > 0,
            "settle_seconds >= 0": self.settle_seconds >= 0,
            "threads >= 1 or None": self.threads is None or self.threads >= 1,
            "cpus not empty or None": self.cpus is None or len(self.cpus) > 0,
        }
        failed = [rule for rule, holds in checks.items() if not holds]
        if failed:
            raise NasError(f"Invalid timing policy, expected {'; '.join(failed)}. Got {self}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The time of one call of a function, with every sample it rests on.

    Attributes:
        samples_us: microseconds per call, in the order they were taken; never empty.
        round_index: the round of each sample, from 0.
        inner_repeats: calls in one sample; the sample is their mean.
        untimed_calls: calls made beside those of the samples, to warm up and to settle.
        warmup_converged: whether the time was stable when warm-up ended.
        cache: the cache state asked for.
        cache_policy: what was done about the cache, in words.
        mode: ``"eager"`` or ``"graph"``.
        threads: torch's CPU threads meanwhile.
        device: where it ran, in words.
        queue: ``"full"`` or ``"open"`` on a GPU, None on a CPU.
        starved: samples in which the GPU may have waited for the host although the policy asked
            for a full queue: they hold launch time.
        shortened: whether there are fewer samples than asked for, for want of time.
    """

    samples_us: tuple[float, ...]
    round_index: tuple[int, ...]
    inner_repeats: int
    untimed_calls: int
    warmup_converged: bool
    cache: Cache
    cache_policy: str
    mode: Mode
    threads: int
    device: str
    queue: Queue | None = None
    starved: int = 0
    shortened: bool = False

    def __post_init__(self) -> None:
        if not self.samples_us or len(self.samples_us) != len(self.round_index):
            raise NasError(
                "A timing needs one round index per sample and at least one sample. Got "
                f"{len(self.samples_us)} samples and {len(self.round_index)} indices."
            )

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.samples_us)

    @property
    def median_us(self) -> float:
        """Median time of a call in microseconds."""
        return statistics.median(self.samples_us)

    @property
    def p10_us(self) -> float:
        """10th percentile in microseconds, interpolated between samples."""
        return quantile(self.samples_us, 0.1)

    @property
    def p90_us(self) -> float:
        """90th percentile in microseconds, interpolated between samples."""
        return quantile(self.samples_us, 0.9)

    @property
    def mad_us(self) -> float:
        """Median absolute deviation from the median in microseconds, not scaled."""
        centre = self.median_us
        return statistics.median(abs(sample - centre) for sample in self.samples_us)

    @property
    def spread(self) -> float:
        """``(p90 - p10) / median``; 0 where the median is 0."""
        return (self.p90_us - self.p10_us) / self.median_us if self.median_us else 0.0

    @property
    def drift(self) -> float:
        """Median of the last round against the first: 0.02 means 2 % slower at the end."""
        first = self._round_median(self.round_index[0])
        last = self._round_median(self.round_index[-1])
        return (last - first) / first if first else 0.0

    def _round_median(self, index: int) -> float:
        pairs = zip(self.samples_us, self.round_index, strict=True)
        return statistics.median(sample for sample, of_round in pairs if of_round == index)

    def only(self, rounds: Collection[int]) -> Timing:
        """Return the timing of some of the rounds.

        Raises:
            NasError: none of the samples is of these rounds.
        """
        kept = [
            pair
            for pair in zip(self.samples_us, self.round_index, strict=True)
            if pair[1] in rounds
        ]
        dropped = self.count - len(kept)
        return replace(
            self,
            untimed_calls=self.untimed_calls + dropped * self.inner_repeats,
            samples_us=tuple(sample for sample, _ in kept),
            round_index=tuple(index for _, index in kept),
        )

    def to_dict(self) -> dict[str, JsonValue]:
        """Return plain JSON values that ``from_dict`` reads; statistics are not among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, JsonValue]) -> Timing:
        """Return the timing that ``to_dict`` wrote.

        Raises:
            NasError: a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if names != set(values):
            raise NasError(
                f"A stored timing has the fields {', '.join(sorted(names))}. Missing or unknown: "
                f"{', '.join(sorted(names ^ set(values)))}."
            )
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }  # type: ignore[arg-type]
        )


def quantile(values: Sequence[float], fraction: float) -> float:
    """Return a quantile, linear between the two nearest of the sorted values.

    Args:
        values: at least one.
        fraction: 0 for the smallest, 1 for the largest.
    """
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
