"""Plans: every node in one workload, followers in the launch before, variants as one piece."""

from __future__ import annotations

from random import Random

import pytest

from kernels.device import Device
from kernels.select import explain
from search_spaces.architecture import Architecture
from search_spaces.lower import lower
from search_spaces.space import DataSpec
from search_spaces.zoo import load_space

CPU = Device("cpu", 0, "a processor", None, 2, 1 << 34)
GPU = Device("cuda", 0, "a card", (9, 0), 132, 1 << 36)


def _plan(text: str, device: Device = CPU, **options: object) -> list[tuple[tuple[int, ...], str]]:
    plan = lower(Architecture.parse(text), device, **options)  # type: ignore[arg-type]
    return [(step.nodes, str(step.workload)) for step in plan.steps]


def test_a_residual_sum_and_its_activation_run_behind_the_convolution_that_ends_last() -> None:
    text = "input 4x8x8; conv 4 k3 bn relu; conv 4 k3 bn; add @1,2; act relu; gap; linear 2"
    text = text.replace("gap; ", "gap; flatten; ")
    assert [nodes for nodes, _ in _plan(text)] == [(1,), (2, 3, 4), (5,), (7,)]
    step = lower(Architecture.parse(text), CPU, batch=3).steps[1]
    assert step.workload.op == "conv"
    assert step.workload.inputs == ((3, 4, 8, 8), (3, 4, 8, 8))
    assert step.workload.output == (3, 4, 8, 8)
    assert step.workload.fused == ("bn", "add", "relu")
    assert step.workload.attr("kernel") == "3x3"


def test_a_sum_whose_inputs_are_read_elsewhere_is_a_workload_of_its_own() -> None:
    text = "input 4x8x8; conv 4; conv 4 k3; add @1,2; concat @2,3"
    assert [nodes for nodes, _ in _plan(text)] == [(1,), (2,), (3,), (4,)]


def test_a_region_is_one_workload_with_its_variant() -> None:
    text = "input 4x8x8; conv 8 bn relu; conv 8 k3 g8 bn relu; conv 4 bn | w1a2 on 1,2"
    (first, workload), (second, _) = _plan(text)
    assert (first, second) == ((1, 2), (3,))
    assert "w1a2" in workload
    variants = [step.workload.variant for step in lower(Architecture.parse(text), CPU).steps]
    assert variants == ["w1a2", "dense"]


@pytest.mark.parametrize(
    ("device", "dtype", "layout"),
    [
        (CPU, "float32", "contiguous"),
        (CPU, "bfloat16", "contiguous"),
        (GPU, "float32", "contiguous"),
        (GPU, "float16", "channels_last"),
    ],
)
def test_layout_follows_device_and_type(device: Device, dtype: str, layout: str) -> None:
    plan = lower(Architecture.parse("input 4x8x8; conv 8 k3"), device, dtype=dtype)
    assert [(s.workload.dtype, s.workload.layout) for s in plan.steps] == [(dtype, layout)]


def test_equal_layers_are_one_distinct_workload() -> None:
    plan = lower(Architecture.parse("input 4x8x8; conv 4 k3 bn; conv 4 k3 bn; conv 4 bn"), CPU)
    assert sorted(plan.distinct().values()) == [1, 2]


def test_every_computing_node_of_a_candidate_is_in_one_step_in_running_order() -> None:
    rng = Random(0)
    for name in ("mobile-cnn", "nas-bench-201"):
        for _ in range(10):
            architecture = load_space(name).sample(rng, DataSpec((3, 32, 32), 10)).architecture
            steps = lower(architecture, CPU).steps
            placed = [number for step in steps for number in step.nodes]
            computing = [
                number
                for number, node in enumerate(architecture.nodes)
                if node.op.kind not in ("input", "zero", "flatten")
            ]
            assert sorted(placed) == computing
            done = {n for n in range(len(architecture.nodes)) if n not in computing}
            for step in steps:
                needed = {item for n in step.nodes for item in architecture.nodes[n].inputs}
                assert needed <= done | set(step.nodes)
                done |= set(step.nodes)


def test_a_sliding_channel_workload_is_one_that_kernels_can_explain() -> None:
    plan = lower(Architecture.parse("input 8x8x8; sliding 8 cg2"), CPU)
    rows = explain(plan.steps[0].workload, CPU).choices
    assert [row.status for row in rows].count("chosen") == 1
    fused = lower(Architecture.parse("input 8x8x8; sliding 8 cg2 bn relu"), CPU)
    refused = explain(fused.steps[0].workload, CPU).choices
    assert {row.status for row in refused} == {"refused"}
    reasons = {row.implementation.name: row.reason for row in refused}
    assert "bn, relu" in reasons["dense"]
