"""Of a generation those stay that are worth most at its birth, whoever asks and when."""

import numpy as np
import pytest

from search_spaces.zoo.mobile_cnn import mobile_cnn_small
from studies.samplers import Lesson
from studies.samplers.drafts import network_key
from studies.samplers.ehvi.model import Outlook, find_parameters
from studies.samplers.ehvi.pool import generation
from studies.samplers.ehvi.search import _KEPT, Search
from studies.samplers.ehvi.space_domain import SpaceDomain
from tests.unit.studies.samplers.cases import DIGITS
from tests.unit.studies.samplers.test_ehvi import costs, ehvi, run


def lessons_of(candidates):
    return [
        Lesson(number, network_key(item), item.decisions, costs(item))
        for number, item in enumerate(candidates)
    ]


def searching():
    directions = ("min", "min")
    domain = SpaceDomain(
        mobile_cnn_small, DIGITS, directions=directions, seed=0, identify=network_key, free=None
    )
    return Search(domain, directions=directions, constraints=(), seed=0)


def test_those_worth_most_at_the_birth_stay():
    search = searching()
    for lesson in lessons_of(run(ehvi(), costs, 16)):
        search.learn(lesson)
    next(search.points(16, []))
    domain, memory = search._domain, search._memory
    moment, known = memory.moment(), memory.known(memory.moment())
    made = {point.key: point for point in generation(domain, 16, memory.parents(moment), 0)}
    others = [point for key, point in made.items() if not search.met(key)]
    assert len(others) > 2 * _KEPT
    fitted = search._fitted
    assert fitted is not None
    found = find_parameters(domain, memory.known(fitted))
    worth = Outlook(domain, found, known, []).worth(others)
    kept = {point.key for point in search._pools[16]}
    assert len(kept) == _KEPT
    stays = np.array([point.key in kept for point in others])
    assert worth[stays].min() >= worth[~stays].max()


@pytest.mark.parametrize("told", [18, 23, 31])
def test_who_joins_later_ranks_the_same_points(told):
    lessons = lessons_of(run(ehvi(), costs, told))
    always, later = searching(), searching()
    for lesson in lessons:
        list(always.points(lesson.number, []))
        always.learn(lesson)
        later.learn(lesson)
    ranked, again = ([point.key for _, point in item.points(told, [])] for item in (always, later))
    assert len(ranked) == 50
    assert again == ranked
