"""The Hopper kernels of Shfl-BW as far as a CPU can tell: compiled for the target, their plans, and
the images and lists that they read."""

from __future__ import annotations

import pytest
import torch

from kernels.jit import compile_cuda, read_source
from kernels.shfl_bw import plan as plans
from kernels.shfl_bw.bundle import bundled
from kernels.shfl_bw.dealing import NOTHING, Item, deal
from kernels.shfl_bw.images import images_of, taps_of
from kernels.shfl_bw.launch import SOURCES
from kernels.shfl_bw.packed import Packed, check, pack
from kernels.shfl_bw.pattern import Pattern, group_count
from kernels.shfl_bw.plan import Plan
from kernels.shfl_bw.window import Window
from tests.unit.kernels.patterns import normal, uneven

# Plans and images


@pytest.mark.parametrize("v", plans.HEIGHTS)
def test_plans_fit_a_multiprocessor_and_the_choice_is_one_of_them(v: int) -> None:
    made = plans.candidates(v)
    assert len(made) >= 4
    for plan in made:
        assert plans.refuses_plan(plan) is None
        assert plan.blocks * (plan.shared_bytes + 1024) <= 227 << 10
        assert plan.token_tiles(1000) % plan.cluster == 0
        assert plan.items(64, 1000) % plan.cluster == 0
    for groups, columns, tokens in (
        (64, 1024, 4096),
        (16, 1024, 960),
        (2, 288, 50176),
        (64, 256, 8),
    ):
        plan = plans.choose(v, groups, columns, tokens, sms=132)
        assert plans.refuses_plan(plan) is None
        assert plan.splits == 1 or plan.splits * groups * plan.token_tiles(tokens) <= 264


@pytest.mark.parametrize(
    ("shape", "measured"),
    [
        # what was fastest on an H100, or within 4 % of it: V, groups, kept columns, tokens,
        # convolution
        ((128, 32, 1024, 4096, False), Plan(128, 256, 1, 4, 1)),
        ((64, 64, 1024, 4096, False), Plan(64, 256, 2, 3, 1)),
        ((64, 64, 1769, 4096, False), Plan(64, 256, 2, 3, 1)),  # V = 32, bundled
        ((64, 172, 1024, 4096, False), Plan(64, 256, 2, 3, 1)),
        ((64, 64, 512, 6400, False), Plan(64, 256, 2, 3, 1)),
        ((64, 64, 256, 6400, False), Plan(64, 256, 2, 3, 1)),
        ((64, 64, 256, 960, False), Plan(64, 256, 2, 3, 1)),
        ((64, 16, 1024, 960, False), Plan(64, 128, 1, 8, 1, teams=2)),
        ((64, 64, 2752, 4096, False), Plan(64, 256, 2, 3, 1)),
        ((64, 2, 288, 50176, True), Plan(64, 128, 1, 4, 1, 2)),
        ((64, 4, 576, 12544, True), Plan(64, 256, 2, 3, 1)),
        ((64, 8, 1152, 3136, True), Plan(64, 128, 1, 4, 1, 2)),
    ],
)
def test_the_choice_is_what_was_fastest(
    shape: tuple[int, int, int, int, bool], measured: Plan
) -> None:
    *sizes, convolution = shape
    assert plans.choose(*sizes, sms=132, convolution=convolution) == measured


def test_the_model_splits_k_only_where_multiprocessors_rest() -> None:
    assert plans.choose(64, 64, 1024, 4096, sms=132).splits == 1
    assert plans.choose(128, 8, 4096, 64, sms=132).splits > 1


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(32), "a group has 64 or 128 rows, not 32"),
        (Plan(64, 96), "64, 128 or 256 columns, not 96"),
        (Plan(128, 64, 2), "have no registers"),
        (Plan(128, teams=2), "have no registers"),
        (Plan(64, cluster=3), "a cluster has 1, 2 or 4 blocks"),
        (Plan(64, 256, 2, 4), "bytes of shared memory"),
    ],
)
def test_plans_that_cannot_be_say_why(plan: Plan, words: str) -> None:
    assert words in str(plans.refuses_plan(plan))


@pytest.mark.parametrize("v", plans.HEIGHTS)
def test_images_hold_the_panels_where_tensor_cores_look(v: int) -> None:
    rows = 2 * v
    weight = normal(rows, 100)
    packed_weight = pack(weight, uneven(rows, 100, v, [70, 0]))
    images = images_of(*packed_weight.tensors())
    assert images.tiles.tolist() == [0, 2, 2]
    assert images.order.tolist() == [0, 1]
    assert images.columns[:70].tolist() == packed_weight.columns.tolist()
    assert images.columns[70:].tolist() == [-1] * 58
    assert images.lengths == (2, 0)
    flat = images.panels.reshape(2, v * 64)
    for tile, row, k in ((0, 0, 0), (0, 5, 9), (1, v - 1, 5), (1, 3, 6), (0, v - 1, 63)):
        place = row * 64 + ((k // 8) ^ (row % 8)) * 8 + k % 8
        vector = tile * 64 + k
        expected = packed_weight.values[vector, row] if vector < 70 else 0.0
        assert flat[tile, place] == expected
    assert images.panels.shape == (2, v, 64)
    assert float(images.panels.abs().sum()) == pytest.approx(
        float(packed_weight.values.abs().sum()), rel=1e-5
    )


@pytest.mark.parametrize(("v", "counts"), [(32, [40, 0, 70, 33, 5]), (16, [9, 30, 0, 12, 12])])
def test_bundled_groups_are_the_same_matrix(v: int, counts: list[int]) -> None:
    rows = 5 * v - 3  # rows of padding, and groups that are left over
    made = pack(normal(rows, 90), uneven(rows, 90, v, counts))
    found = bundled(*made.tensors())
    again = Packed(*found, made.shape)
    check(again)
    assert again.v == 64
    assert torch.equal(again.dense(), made.dense())
    assert again.groups == group_count(rows, 64)
    assert len(again.columns) <= len(made.columns)


def test_groups_with_the_same_columns_go_together() -> None:
    mask = torch.zeros(128, 40, dtype=torch.bool)
    mask[:32, :10] = mask[64:96, :10] = True
    mask[32:64, 20:30] = mask[96:, 20:31] = True
    pattern = Pattern(mask, torch.arange(128), 32)
    _, _, offsets, rows = bundled(*pack(normal(128, 40), pattern).tensors())
    assert offsets.tolist() == [0, 10, 21]
    assert rows.view(2, 64)[:, ::32].tolist() == [[0, 64], [32, 96]]


def loads(items: list[Item], workers: int, overhead: float) -> list[float]:
    found = [0.0] * workers
    for place, (_, _, begin, end) in enumerate(items):
        found[place % workers] += overhead + end - begin if items[place] != NOTHING else 0.0
    return found


def test_every_tile_is_dealt_once_and_no_worker_has_much_more_than_others() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(14, 19, (64,), generator=generator).tolist()
    how = {"step": 1024, "width": 512, "splits": 1, "workers": 66}
    items = deal(lengths, 4096, overhead=1.5, **how)
    assert len(items) % 66 == 0
    real = [item for item in items if item != NOTHING]
    begins = [sum(lengths[:g]) for g in range(64)]
    assert sorted(real) == sorted(
        (g, first, begins[g], begins[g] + lengths[g])
        for g in range(64)
        for first in range(0, 4096, 1024)
    )
    mean = sum(lengths) * 4 / 66 + 1.5 * 256 / 66
    longest = max(loads(items, 66, 1.5))
    in_turn = [0.0] * 66
    for place in range(256):
        in_turn[place % 66] += 1.5 + sorted(lengths, reverse=True)[place % 64]
    assert longest <= 1.05 * mean
    assert longest < max(in_turn)
    for worker in range(66):  # tokens one after the other, so that they stay in the cache
        firsts = [item[1] for item in items[worker::66] if item != NOTHING]
        assert firsts == sorted(firsts)


def test_splits_of_a_group_are_dealt_apart() -> None:
    items = deal([5, 0], 8, step=64, width=64, splits=2, workers=3, overhead=1.0)
    assert sorted(item for item in items if item != NOTHING) == [
        (0, 0, 0, 2),
        (1, 0, 5, 5),
        (1 << 20, 0, 2, 5),
        (1 << 20 | 1, 0, 5, 5),
    ]


def test_taps_say_where_a_column_reads() -> None:
    columns = torch.tensor([0, 5, 23, -1], dtype=torch.int32)  # (tap, channel) of 4 channels
    offsets, shifts = taps_of(columns, Window((2, 3), (1, 1), (0, 0), (2, 3)), 4, 7, 9)
    assert offsets.tolist() == [0, 1 * 63 + 3, 3 * 63 + 2 * 9 + 6, -1]
    assert shifts.tolist() == [0, 3, 2 << 16 | 6, 0]


# Compiled for the target


def assert_compiles_well(plan: Plan, **extra: int) -> None:
    """Compile the product kernel; nothing spills, no instruction is left out or put in order."""
    defines = plan.defines() | {"ACTIVATION": 0} | extra
    options = [f"-D{name}={value}" for name, value in defines.items()]
    found = compile_cuda(
        read_source(SOURCES / "spmm.cu"), name="shfl_bw_spmm", arch="sm_90a", options=options
    )
    (resources,) = found.functions.values()
    assert resources.spill_bytes == 0
    assert resources.stack_bytes == 0
    assert "ignored" not in found.log  # setmaxnreg
    assert "C7510" not in found.log  # products one after the other
    assert "C7519" not in found.log


def test_the_plan_of_record_compiles_without_spills() -> None:
    assert_compiles_well(plans.choose(64, 64, 1024, 4096, sms=132))


@pytest.mark.slow
@pytest.mark.parametrize("v", plans.HEIGHTS)
def test_all_plans_compile_without_spills(v: int) -> None:
    """And with everything that adds registers: convolution, GELU, splits."""
    for plan in plans.candidates(v):
        assert_compiles_well(plan)
        assert_compiles_well(plan, CONV=1, ACTIVATION=5)
    assert_compiles_well(plans.candidates(v)[0], SPLIT=1, BFLOAT=1)


@pytest.mark.parametrize("file", ["reduce.cu", "transpose.cu"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_the_small_kernels_compile(file: str, arch: str) -> None:
    source = read_source(SOURCES / file)
    found = compile_cuda(source, name=f"shfl_bw_{file[:-3]}", arch=arch, options=["-DACTIVATION=5"])
    (resources,) = found.functions.values()
    assert resources.spill_bytes == 0
