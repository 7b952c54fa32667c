"""Candidates as vectors of one length, although each answers questions of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from search_spaces.choose import Option
from studies.samplers.questions import Answers, parameter_name


class Encoding:
    """Every question that some candidate answered is a parameter of all.

    Optuna's samplers relate only parameters that all trials have. So where a candidate was not
    asked a question, the parameter has one value more, which says so. When a model proposes that
    value for a question that is asked after all, it is answered at random.

    Attributes:
        sizes: number of options by parameter, sorted by name.
        choices: number of values by parameter.
        distributions: positions among the options, by parameter.
        signature: equal where encodings are.
    """

    def __init__(self, answers: Sequence[Answers]) -> None:
        shapes = Counter(item.shape for item in answers)
        asked: Counter[str] = Counter()
        sizes: dict[str, int] = {}
        for shape, count in shapes.items():
            for name, size in shape:
                asked[name] += count
                sizes[name] = size
        self.sizes = dict(sorted(sizes.items()))
        self.choices = {
            name: size + (asked[name] < len(answers)) for name, size in self.sizes.items()
        }
        self.distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(count)) for name, count in self.choices.items()
        }
        self.signature = (tuple(self.sizes.items()), tuple(self.choices.values()))

    def params(self, answers: Answers) -> dict[str, int]:
        """Return the vector of a candidate by parameter."""
        positions = answers.positions
        return {name: positions.get(name, size) for name, size in self.sizes.items()}


class TrialDecider:
    """Lets an Optuna trial answer; see :class:`search_spaces.choose.Decider`.

    Args:
        trial: the trial.
        encoding: of the trials that its sampler knows.
        rng: answers where the sampler says that a question is not asked.
    """

    def __init__(self, trial: optuna.Trial, encoding: Encoding, rng: Random) -> None:
        self._trial, self._rng = trial, rng
        self._choices = encoding.choices

    def decide(self, name: str, options: Sequence[Option]) -> int:
        """See :class:`search_spaces.choose.Decider`."""
        count = len(options)
        if count == 1:
            return 0  # nothing to learn
        parameter = parameter_name(name, options)
        choices = range(self._choices.get(parameter, count))
        answer = self._trial.suggest_categorical(parameter, choices)
        return answer if answer < count else int(self._rng.random() * count)
