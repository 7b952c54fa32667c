"""The Shfl-BW pattern: who belongs, counted by hand, and pruning that finds what was planted."""

from __future__ import annotations

from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.errors import NasError, UnknownNameError
from kernels.shfl_bw.kmeans import constrained_kmeans
from kernels.shfl_bw.pattern import (
    as_matrix,
    group_count,
    is_shfl_bw,
    like_weight,
    pattern_of,
    refuses_mask,
)
from kernels.shfl_bw.prune import GROUPINGS, prune, retained, vectors_kept

WEIGHTS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "weights"
EXAMPLE = torch.tensor(
    [
        [9, 8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        [0.1, 0.2, 7, 6, 0.3, 0.5, 0.4, 0.2],
        [8, 7, 0.3, 0.1, 0.2, 0.6, 0.4, 0.5],
        [0.2, 0.3, 6, 9, 0.1, 0.4, 0.6, 0.5],
    ]
)


def masks(rows: int, columns: int) -> list[torch.Tensor]:
    bits = product((False, True), repeat=rows * columns)
    return [torch.tensor(found).view(rows, columns) for found in bits]


def vector_wise(mask: torch.Tensor, v: int) -> bool:
    groups = mask.view(-1, v, mask.shape[1])
    return bool((groups == groups[:, :1]).all())


# Membership


def test_membership_is_that_of_the_definition() -> None:
    """All masks of 4 x 2, against every order of their rows."""
    orders = [torch.tensor(order) for order in permutations(range(4))]
    for mask in masks(4, 2):
        assert is_shfl_bw(mask, 2) == any(vector_wise(mask[order], 2) for order in orders)


def test_the_counts_of_small_masks() -> None:
    """M = K = 4, V = 2, one column a row: 16 vector-wise, 4 + C(4,2) C(4,2) = 40 Shfl-BW of 256."""
    ones = [torch.eye(4).bool()[list(columns)] for columns in product(range(4), repeat=4)]
    assert len(ones) == 256
    assert sum(vector_wise(mask, 2) for mask in ones) == 16
    assert sum(is_shfl_bw(mask, 2) for mask in ones) == 40


def test_padding_makes_up_for_what_v_does_not_divide() -> None:
    alike = torch.tensor([[1, 0], [1, 0], [0, 1]]).bool()
    assert is_shfl_bw(alike, 2)
    assert not is_shfl_bw(torch.tensor([[1, 0], [0, 1], [1, 1]]).bool(), 2)
    pattern = pattern_of(alike, 2)
    assert sorted(pattern.order.tolist()) == [0, 1, 2, 3]
    assert pattern.kept().sum() == 2


def test_a_pattern_shows_its_order_and_a_refusal_its_rule() -> None:
    mask = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]]).bool()
    pattern = pattern_of(mask, 2)
    assert vector_wise(mask[pattern.order], 2)
    assert pattern.groups == 2
    assert torch.equal(pattern.kept()[0], mask[pattern.order[0]])
    with pytest.raises(NasError, match="multiple of V=4 times, one occurs 2 times"):
        pattern_of(mask, 4)
    assert "padding" in str(refuses_mask(mask[:3], 4))
    with pytest.raises(NasError, match="at least one row"):
        group_count(4, 0)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_shuffled_vector_wise_masks_belong(groups: int, v: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(groups, columns, generator=generator) < 0.5
    mask = kept.repeat_interleave(v, 0)[torch.randperm(groups * v, generator=generator)]
    assert is_shfl_bw(mask, v)
    order = pattern_of(mask, v).order
    assert vector_wise(mask[order], v)
    if v > 1 and len(torch.unique(kept, dim=0)) > 1:
        broken = mask.clone()
        broken[0, 0] = ~broken[0, 0]
        assert not is_shfl_bw(broken, v)


def test_filters_are_matrices_with_the_channel_fastest() -> None:
    filters = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    matrix = as_matrix(filters)
    assert matrix[0, :3].tolist() == [0, 4, 8]
    assert torch.equal(like_weight(matrix, filters.shape), filters)
    with pytest.raises(NasError, match=r"matrices .* and filters"):
        as_matrix(torch.zeros(3))


# Pruning


def test_kmeans_groups_the_papers_figure() -> None:
    """Rows 1 4, 2 5, 3 6 (from 1) keep columns 1 3, 2 4, 1 3 6: found with inertia 0."""
    points = np.zeros((6, 6))
    for row, columns in enumerate([(0, 2), (1, 3), (0, 2, 5)] * 2):
        points[row, list(columns)] = 1
    label, inertia = constrained_kmeans(points, 2)
    assert inertia == 0
    assert [label[i] == label[i + 3] for i in range(3)] == [True] * 3


def test_the_worked_example_by_every_grouping() -> None:
    loose = EXAMPLE.gt(EXAMPLE.flatten().quantile(0.5)).numpy().astype(float)
    label, inertia = constrained_kmeans(loose, 2)
    assert inertia == 2.5
    assert label[0] == label[2] != label[1] == label[3]
    best = torch.topk(EXAMPLE.flatten(), 8).values.sum()
    for grouping in ("exchange", "kmeans"):
        pattern = prune(EXAMPLE, 2, 0.25, grouping=grouping)
        expected = [[1, 1, 0, 0], [0, 0, 1, 1]] * 2
        assert pattern.mask[:, :4].int().tolist() == expected
        assert not pattern.mask[:, 4:].any()
        assert torch.isclose(EXAMPLE[pattern.mask].sum(), torch.tensor(60.0))
        assert torch.isclose(EXAMPLE[pattern.mask].sum(), best)
    plain = prune(EXAMPLE, 2, 0.25, grouping="none")
    assert torch.isclose(EXAMPLE[plain.mask].sum(), torch.tensor(34.6))


def planted(
    rows: int, columns: int, v: int, density: float, seed: int, spread: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """A shuffled vector-wise matrix with noise, and its support; groups may differ in length."""
    generator = torch.Generator().manual_seed(seed)
    groups, vectors = rows // v, int(density * columns * rows // v)
    places = torch.rand(groups * columns, generator=generator).argsort()[:vectors]
    kept = torch.zeros(groups * columns, dtype=torch.bool)
    kept[places] = True
    kept = kept.view(groups, columns)
    if not spread:
        kept = torch.rand(groups, columns, generator=generator).argsort(1) < density * columns
    support = kept.repeat_interleave(v, 0)
    strong = 1 + torch.rand(rows, columns, generator=generator)
    weak = 0.01 * torch.randn(rows, columns, generator=generator)
    order = torch.randperm(rows, generator=generator)
    return torch.where(support, strong, weak)[order], support[order]


@pytest.mark.parametrize("grouping", ["exchange", "kmeans"])
@pytest.mark.parametrize(("seed", "spread"), [(0, False), (1, True)])
def test_planted_structure_is_recovered_exactly(grouping: str, seed: int, spread: bool) -> None:
    weight, support = planted(128, 128, 16, 0.25, seed, spread)
    assert torch.equal(prune(weight, 16, 0.25, grouping=grouping).mask, support)


def test_planted_structure_of_many_rows_is_recovered() -> None:
    weight, support = planted(1024, 512, 64, 0.25, 2)
    assert torch.equal(prune(weight, 64, 0.25).mask, support)


def test_structure_orders_the_patterns() -> None:
    """With 8 hidden families of rows: unstructured > ours >= published > vector-wise > blocks."""
    generator = torch.Generator().manual_seed(0)
    family = torch.randint(8, (128,), generator=generator)
    scale = torch.rand(8, 128, generator=generator) ** 3
    weight = torch.randn(128, 128, generator=generator) * scale[family]
    share = {name: retained(weight, prune(weight, 16, 0.25, grouping=name)) for name in GROUPINGS}
    best = torch.topk(weight.abs().flatten(), weight.numel() // 4).values.sum()
    assert best / weight.abs().sum() > share["exchange"] >= share["kmeans"] > share["none"]
    blocks = weight.abs().view(8, 16, 8, 16).sum((1, 3)).flatten().sort(descending=True).values
    assert share["none"] > blocks[:16].sum() / weight.abs().sum()


def test_looseness_matters_little_until_the_mask_is_full() -> None:
    """Published rule, beta 1 to 3; at beta x density = 1 K-means sees nothing."""
    weight, _ = planted(128, 128, 16, 0.25, 3)
    weight = weight + 0.5 * torch.randn(128, 128, generator=torch.Generator().manual_seed(1))
    found = {
        beta: retained(weight, prune(weight, 16, 0.25, grouping="kmeans", looseness=beta))
        for beta in (1.0, 1.5, 2.0, 3.0, 4.0)
    }
    assert max(found[b] for b in (1.0, 1.5, 2.0)) - min(found[b] for b in (1.0, 1.5, 2.0)) < 0.01
    assert found[4.0] < found[2.0]
    # Ours starts from the same mask and is not lost without it.
    assert retained(weight, prune(weight, 16, 0.25, looseness=4.0)) >= found[2.0]


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 20),
    v=st.sampled_from((1, 2, 4, 8, 16)),
    density=st.floats(0, 1),
    seed=st.integers(0, 1000),
    grouping=st.sampled_from(sorted(GROUPINGS)),
)
@settings(max_examples=60, deadline=None)
def test_the_budget_is_met_exactly_and_the_mask_belongs(
    rows: int, columns: int, v: int, density: float, seed: int, grouping: str
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    pattern = prune(weight, v, density, grouping=grouping, seed=seed)
    assert int(pattern.kept().sum()) <= vectors_kept(rows, columns, v, density)
    if rows % v == 0:
        assert int(pattern.mask.sum()) == v * vectors_kept(rows, columns, v, density)
    assert is_shfl_bw(pattern.mask, v) or rows % v
    assert sorted(pattern.order.tolist()) == list(range(len(pattern.order)))
    padded = torch.cat([pattern.mask, pattern.mask.new_zeros(-rows % v, columns)])
    inside = (pattern.order < rows).view(-1, v, 1)
    members = padded[pattern.order].view(-1, v, columns)
    assert torch.equal(members, pattern.kept()[:, None] & inside)


def test_equal_scores_still_meet_the_budget() -> None:
    """Where a strict percentile keeps nothing of a constant matrix, or too little of zeros."""
    for weight in (torch.ones(8, 16), torch.zeros(8, 16)):
        pattern = prune(weight, 4, 0.25)
        assert int(pattern.mask.sum()) == 32
        assert is_shfl_bw(pattern.mask, 4)


def test_all_and_nothing() -> None:
    weight = torch.randn(24, 10)
    assert bool(prune(weight, 8, 1.0).mask.all())
    assert not bool(prune(weight, 8, 0.0).mask.any())
    assert retained(weight, prune(weight, 8, 1.0)) == 1.0


def test_filters_are_pruned_as_matrices() -> None:
    filters = torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    pattern = prune(filters, 4, 0.3)
    assert pattern.mask.shape == (16, 36)
    assert torch.equal(pattern.mask, prune(as_matrix(filters), 4, 0.3).mask)


def test_importance_takes_the_place_of_magnitude() -> None:
    weight = torch.ones(4, 4)
    importance = torch.zeros(4, 4)
    importance[:, 2] = 1
    pattern = prune(weight, 2, 0.25, importance=importance)
    assert bool(pattern.mask[:, 2].all())
    assert int(pattern.mask.sum()) == 4
    with pytest.raises(NasError, match="importance of shape"):
        prune(weight, 2, 0.25, importance=torch.ones(3, 4))


def test_the_same_seed_gives_the_same_pattern() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    first, again = (prune(weight, 16, 0.25, seed=3) for _ in range(2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.order, again.order)


def test_bad_requests_name_the_rule() -> None:
    weight = torch.randn(8, 8)
    with pytest.raises(NasError, match=r"share of weights kept, 0 to 1, got 1.5"):
        prune(weight, 2, 1.5)
    with pytest.raises(NasError, match=r"at least one row .* got V=0"):
        prune(weight, 0, 0.5)
    with pytest.raises(UnknownNameError, match=r"grouping of rows 'kmean'. Known: exchange"):
        prune(weight, 2, 0.5, grouping="kmean")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NasError, match="must be finite"):
            prune(torch.full((8, 8), bad), 2, 0.5)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs the trained weights in ../shared/data")
@pytest.mark.parametrize(("layer", "v"), [("layer1.4.conv1", 8), ("layer3.4.conv2", 16)])
def test_trained_weights_keep_more_than_by_the_published_grouping(layer: str, v: int) -> None:
    """Two layers of a trained ResNet-56; all of ResNet-20, -32, -56: docs/results.md."""
    arrays = np.load(WEIGHTS / "cifar10_resnet56.npz")
    weight = torch.from_numpy(arrays[f"{layer}.weight"])
    kept = {name: retained(weight, prune(weight, v, 0.25, grouping=name)) for name in GROUPINGS}
    assert kept["exchange"] >= kept["kmeans"] > kept["none"]


def test_exchanges_reach_the_optimum_of_a_small_matrix() -> None:
    """8 rows in 2 groups: 35 ways, all of them looked at."""
    for seed in range(5):
        weight = torch.rand(8, 6, generator=torch.Generator().manual_seed(seed))
        scores = []
        for rest in combinations(range(1, 8), 3):
            first = torch.tensor([0, *rest])
            others = torch.tensor([row for row in range(8) if row not in (0, *rest)])
            both = torch.stack([weight[first].sum(0), weight[others].sum(0)])
            scores.append(float(torch.topk(both.flatten(), 3).values.sum()))
        found = float(weight[prune(weight, 4, 0.25).mask].sum())
        assert found == pytest.approx(max(scores), rel=1e-5)
