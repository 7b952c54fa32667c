"""A network is timed with its weights at several places in memory."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import nn

from evaluators.latency import subject
from evaluators.latency.latency import LatencyEvaluator, default_policy
from evaluators.latency.subject import Subject, prepare
from kernels.device import Device, detect
from kernels.timing import Movable
from search_spaces.architecture import Architecture

CPU = detect("cpu")
GPU = Device("cuda", 0, "a card", (9, 0), 132, 1 << 36)
NET = Architecture.parse("input 3x8x8; conv 8 k3 bn relu; gap; flatten; linear 10")


def held(made: Subject) -> list[torch.Tensor]:
    return [*made.module.parameters(), *made.module.buffers()]


def places(made: Subject) -> list[int]:
    return [tensor.data_ptr() for tensor in held(made)]


def test_moved_weights_are_the_same_elsewhere() -> None:
    with torch.inference_mode():
        made = prepare(NET, CPU)
        made.module.to(memory_format=torch.channels_last)
        before, outputs = places(made), made.run()
        strides = [tensor.stride() for tensor in held(made)]
        old = [tensor.detach() for tensor in held(made)]  # so that no place is taken again
        assert made.move(Random(0))
        assert not set(before) & set(places(made))
        assert [tensor.stride() for tensor in held(made)] == strides
        assert all(torch.equal(*pair) for pair in zip(held(made), old, strict=True))
        assert torch.equal(made.run(), outputs)
        next(made.module.parameters()).zero_()  # what runs is what was moved
        assert not torch.equal(made.run(), outputs)


def test_weights_of_a_module_that_was_trained_move_too() -> None:
    made = Subject(nn.Linear(4, 4).eval(), torch.ones(1, 4), "contiguous")
    old = [tensor.detach() for tensor in held(made)]
    with torch.inference_mode():
        assert made.move(Random(0))
    assert made.module.weight is next(made.module.parameters())
    assert not {tensor.data_ptr() for tensor in old} & set(places(made))


def test_weights_that_do_not_fit_twice_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(NET, CPU)
    before = places(made)
    copied: list[torch.Tensor] = []

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if len(copied) == 2:
            raise torch.OutOfMemoryError("tried to allocate 2 TiB")
        copied.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(subject, "_copy", copy)
    assert not made.move(Random(0))
    assert places(made) == before


def test_on_a_gpu_every_round_has_another_place_and_it_is_told() -> None:
    made = prepare(NET, CPU)
    moved: list[bool] = []
    timed = LatencyEvaluator(GPU)._movable(made, made.run, moved)
    assert isinstance(timed, Movable)
    seen = {tuple(places(made))}
    for _ in range(default_policy(GPU).rounds):
        timed.move()
        seen.add(tuple(places(made)))
    assert moved == [True] * 12
    assert len(seen) > 2
    assert LatencyEvaluator(CPU)._movable(made, made.run, moved) == made.run


def test_the_detail_says_at_how_many_places() -> None:
    (measured,) = LatencyEvaluator(CPU).evaluate(NET)
    assert measured.detail["places"] == 1
