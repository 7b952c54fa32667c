"""NSGA-II and NSGA-III in generations of a fixed size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from studies.samplers.encoding import Encoding
from studies.samplers.guided import Guided, Problem, known_rows
from studies.samplers.protocol import Lesson, ask_seed
from studies.samplers.shelf import STUDY, Shelf
from studies.samplers.window import Entry

POPULATION = 20
"""Lessons of a generation: Optuna's 50 would make a study of 50 a random search."""


class Genetic(Guided):
    """Breeds from the best of the last generation and of the parents it had.

    Generations are counted here: the lessons that can be learned from, twenty by twenty, whoever
    proposed them. When one is complete, Optuna selects the parents of the next.

    Optuna 5.0 (``nsgaii/_elite_population_selection_strategy.py``, ``_constraints_evaluation.py``)
    ranks infeasible trials after all feasible ones and by their violation alone. Values are read
    among those of one rank: for NSGA-II's crowding distance, and for the scale of NSGA-III. The
    placeholder is therefore the worst known figure of each objective, which changes no scale.
    """

    def __init__(self, name: str, problem: Problem) -> None:
        super().__init__(name, problem, newest=POPULATION, front=0)
        self._generation = 0
        self._population: list[Entry] = []
        self._parents: list[Entry] = []

    def considered(self) -> list[Entry]:
        """Return the parents."""
        return self._parents

    def learn(self, lesson: Lesson) -> None:
        """See :class:`~studies.samplers.Drafter`."""
        entry = self.window.add(lesson)
        if entry is None or self.answers(entry) is None:
            return
        self._population.append(entry)
        if len(self._population) == POPULATION:
            self._parents = self._select()
            self._population = []
            self._generation += 1

    def placeholder(self, entries: Sequence[Entry]) -> tuple[float, ...]:
        """Return the worst figure of each objective."""
        rows = known_rows(entries)
        if not len(rows):
            return super().placeholder(entries)
        pairs = zip(rows.T.tolist(), self.problem.directions, strict=True)
        return tuple(max(column) if item == "min" else min(column) for column, item in pairs)

    def fresh(self, seed: int, encoding: Encoding, trials: Sequence[FrozenTrial]) -> BaseSampler:
        """See :class:`~studies.samplers.guided.Guided`."""
        return self._sampler(seed, encoding.distributions, parents=trials)

    def _select(self) -> list[Entry]:
        entries = sorted([*self._parents, *self._population], key=lambda entry: entry.order)
        placeholder = self.placeholder(entries)
        encoding = Encoding([])
        trials = {item.order: self.frozen(item, placeholder, {}, encoding) for item in entries}
        sampler = self._sampler(
            ask_seed(self.problem.seed, -1 - self._generation),
            {},
            parents=[trials[item.order] for item in self._parents],
            population=[trials[item.order] for item in self._population],
        )
        study = Study(STUDY, Shelf(self.directions, list(trials.values())), sampler)
        chosen = {trial.number for trial in sampler.select_parent(study, 1)}
        return [entry for entry in entries if entry.order in chosen]

    def _sampler(
        self,
        seed: int,
        space: Mapping[str, BaseDistribution],
        *,
        parents: Sequence[FrozenTrial],
        population: Sequence[FrozenTrial] = (),
    ) -> _Nsga2 | _Nsga3:
        make = _Nsga2 if self.kind == "nsga2" else _Nsga3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # NSGA-III, since Optuna 3.2
            sampler = make(population_size=POPULATION, seed=seed)
        sampler.space, sampler.parents, sampler.population = space, parents, population
        return sampler


class _Given:
    """Takes generations as they are given instead of counting trials."""

    space: Mapping[str, BaseDistribution]
    parents: Sequence[FrozenTrial]
    population: Sequence[FrozenTrial]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self.space)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return 1

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return list(self.population)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return list(self.parents)


class _Nsga2(_Given, NSGAIISampler):
    pass


class _Nsga3(_Given, NSGAIIISampler):
    pass
