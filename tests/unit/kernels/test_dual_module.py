"""Dual-module inference: the worked numbers of the notes, layers, calibration."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import nn

from evaluators.latency.operands import OPERANDS
from kernels.device import detect
from kernels.dual_module.calibrate import (
    compute_everything,
    dual_layers,
    fit,
    search_thresholds,
    set_ratio,
    set_tolerance,
)
from kernels.dual_module.conv import DualModuleConv2d, fold_batch_norm
from kernels.dual_module.fit import LeastSquares, quantise
from kernels.dual_module.implementations import feed_forward_workload
from kernels.dual_module.linear import DualModuleFFN, DualModuleLinear
from kernels.dual_module.little import LittleModule
from kernels.dual_module.projection import pack_signs, ternary, unpack_signs
from kernels.dual_module.recurrent import DualModuleGRUCell, DualModuleLSTM, DualModuleLSTMCell
from kernels.dual_module.regions import (
    Activation,
    most_sensitive,
    region_threshold,
    sensitive,
    threshold_for_ratio,
)
from kernels.dual_module.report import report
from kernels.dual_module.sizes import Cost, projection_size
from kernels.errors import NasError
from kernels.select import explain, implementations, select

CPU = detect("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectrum(samples: int, size: int, decay: float, seed: int) -> torch.Tensor:
    """Gaussian inputs whose covariance has eigenvalues i^-decay in a random basis."""
    scale = torch.arange(1, size + 1, dtype=torch.float64) ** (-decay / 2)
    basis = torch.linalg.qr(normal(size, size, seed=99).double()).Q
    return (normal(samples, size, seed=seed).double() * scale) @ basis.T


# Worked numbers: papers/dual_module.md section 7.

SIZES = {
    6000: (966, 417, 266),
    64: (462, 199, 127),
    256: (616, 266, 169),
    512: (693, 299, 190),
    1024: (770, 332, 212),
    4096: (924, 399, 254),
}


@pytest.mark.parametrize(("outputs", "expected"), SIZES.items())
def test_sizes_of_projections(outputs: int, expected: tuple[int, ...]) -> None:
    assert tuple(projection_size(outputs, 10**6, e) for e in (0.3, 0.5, 0.7)) == expected
    assert projection_size(outputs, 100, 0.3) == 50
    assert projection_size(1, 1) == 1


def test_bytes_of_the_papers_lstm() -> None:
    mebi = 2**20
    base = Cost(6000, 3000, 834, 32, 0.0)
    assert base.big_bytes / mebi == pytest.approx(68.66, abs=0.01)
    for bits, expected in ((32, 19.09), (8, 4.77), (4, 2.39), (2, 1.19), (1, 0.60)):
        cost = Cost(6000, 3000, 834, bits, 0.0)
        assert cost.little_bytes / mebi == pytest.approx(expected, abs=0.01)
    half = Cost(6000, 3000, 834, 8, 0.5)
    assert half.memory_ratio == pytest.approx(0.5 + 0.0695, abs=1e-3)
    assert Cost(6000, 3000, 834, 8, 0.0).operation_ratio("full") - 1 == pytest.approx(
        0.278 + 834 / 18000, abs=1e-3
    )
    assert half.operation_ratio("free") == 0.5
    assert half.operation_ratio("weighted") == pytest.approx(0.5 + 0.278 / 4, abs=1e-3)
    with pytest.raises(NasError, match="Unknown counting rule"):
        half.operation_ratio("some")


def test_projections_keep_lengths() -> None:
    signs = ternary(128, 512, seed=1)
    assert signs.abs().float().mean().item() == pytest.approx(0.332, abs=0.01)
    x = normal(2000, 512)
    u = x @ signs.float().T * (3 / 128) ** 0.5
    ratio = (u.square().sum(1) / x.square().sum(1)).mean().item()
    assert ratio == pytest.approx(1, abs=0.02)
    assert torch.equal(ternary(128, 512, seed=1), signs)
    assert not torch.equal(ternary(128, 512, seed=2), signs)
    for inputs in (1, 63, 64, 130):
        some = ternary(5, inputs, seed=3)
        assert torch.equal(unpack_signs(pack_signs(some), inputs), some)


X = torch.tensor([1.0, -2.0, 0.5, 3.0])
W = torch.tensor([[0.5, -0.25, 1, 0.5], [-1, 0.5, 0, -0.5], [0.2, 0.1, -0.4, 0.1]])
B = torch.tensor([0.1, 0.0, -0.2])
P = torch.tensor([[1.0, 0, 0, 1], [0, -1, 1, 0]])
W_LL = torch.tensor([[0.45, 0.35], [-0.6, -0.2], [0.1, -0.2]])
B_LL = torch.tensor([0.0, 0.1, -0.2])


def test_the_toy_layer() -> None:
    y = W @ X + B
    assert y.tolist() == pytest.approx([3.1, -3.5, -0.1])
    u = 1.5**0.5 * P @ X
    assert u.tolist() == pytest.approx([4.89898, 3.06186], abs=1e-5)
    estimate = W_LL @ u + B_LL
    assert estimate.tolist() == pytest.approx([3.27619, -3.45176, -0.32247], abs=1e-5)
    relu = sensitive(estimate, "relu", 0.0)
    assert relu.tolist() == [True, False, False]
    assert torch.where(relu, y, estimate).relu().tolist() == pytest.approx([3.1, 0, 0])
    tanh = sensitive(estimate, "tanh", 1.0)
    assert tanh.tolist() == [False, False, True]
    out = torch.where(tanh, y, estimate).tanh()
    assert out.tolist() == pytest.approx([0.99715, -0.99799, -0.09967], abs=1e-5)
    assert (out - y.tanh()).abs().max().item() == pytest.approx(0.00120, abs=1e-5)


def test_the_toy_layer_in_8_bits() -> None:
    u, u_scale = quantise(1.5**0.5 * P @ X, 8)
    w, w_scale = quantise(W_LL, 8)
    assert u.tolist() == [127, 79]
    assert w.tolist() == [[95, 74], [-127, -42], [21, -42]]
    estimate = (w.int() @ u.int()) * u_scale * w_scale + B_LL
    assert estimate.tolist() == pytest.approx([3.26414, -3.44407, -0.31864], abs=1e-5)


def test_the_most_sensitive_rows() -> None:
    estimate = torch.tensor([-3, 0.2, -0.1, 2.5, 0.9])
    assert most_sensitive(estimate, "relu", 2).tolist() == [False, False, False, True, True]
    for activation in ("sigmoid", "tanh"):
        found = most_sensitive(estimate, activation, 2)
        assert found.tolist() == [False, True, True, False, False]
    assert most_sensitive(estimate, "relu", 9).all()
    assert not most_sensitive(estimate, "relu", 0).any()


def test_regions_keep_the_change_below_the_tolerance() -> None:
    assert region_threshold("tanh", 0.1, 0.01) == pytest.approx(1.844, abs=1e-3)
    assert region_threshold("sigmoid", 0.1, 0.01) == pytest.approx(2.303, abs=1e-3)
    assert region_threshold("relu", 0.1, 0.01) == pytest.approx(-0.09)
    edge = region_threshold("tanh", 0.1, 0.01)
    assert math.tanh(edge + 0.1) - math.tanh(edge) == pytest.approx(0.0087, abs=1e-4)
    assert math.tanh(edge) - math.tanh(edge - 0.1) == pytest.approx(0.0105, abs=1e-4)
    paper = 0.5 * math.log(2 * 0.1 / 0.01)
    assert math.tanh(paper) - math.tanh(paper - 0.1) > 0.0166  # its constant lets too much through
    assert region_threshold("sigmoid", 0.01, 0.1) == 0
    with pytest.raises(NasError, match="must be positive"):
        region_threshold("tanh", 0.0, 0.1)
    with pytest.raises(NasError, match="Unknown activation 'gelu'"):
        region_threshold("gelu", 0.1, 0.1)  # type: ignore[arg-type]


VARIANCE = {
    0.0: ((64, 0.881), (128, 0.760), (256, 0.514)),
    1.0: ((64, 0.486), (128, 0.353), (256, 0.193)),
    1.5: ((64, 0.132), (128, 0.079), (256, 0.035)),
}


@pytest.mark.parametrize("decay", VARIANCE)
def test_what_least_squares_leave(decay: float) -> None:
    big = normal(256, 512, seed=5).double() / 512**0.5
    train, held = spectrum(8000, 512, decay, 1), spectrum(3000, 512, decay, 2)
    for k, expected in VARIANCE[decay]:
        signs = ternary(k, 512, seed=k).double() * (3 / k) ** 0.5
        equations = LeastSquares(k, 256)
        equations.add(train @ signs.T, train @ big.T)
        weights, bias = equations.solve()
        y = held @ big.T
        left = y - (held @ signs.T @ weights.double().T + bias.double())
        assert (left.var() / y.var()).item() == pytest.approx(expected, rel=0.15, abs=0.01)


@cache
def inputs(samples: int, seed: int) -> torch.Tensor:
    return spectrum(samples, 256, 1.0, seed).float() * 8


def layer_on(activation: Activation, bits: int) -> tuple[DualModuleLinear, torch.Tensor]:
    torch.manual_seed(0)
    layer = DualModuleLinear(nn.Linear(256, 128), activation, bits=bits, projected=64)
    layer.requires_grad_(requires_grad=False)
    fit(layer, lambda: layer(inputs(4000, 3)))
    return layer, inputs(1000, 4)


@cache
def estimated() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unit variance and their estimates: 256 of 512 inputs, 128 projected."""
    big = normal(256, 512, seed=5).double()
    train, held = spectrum(8000, 512, 1.0, 1), spectrum(3000, 512, 1.0, 2)
    scale = (train @ big.T).std()
    signs = ternary(128, 512, seed=128).double()
    equations = LeastSquares(128, 256)
    equations.add(train @ signs.T, train @ big.T / scale)
    weights, bias = equations.solve()
    return held @ big.T / scale, held @ signs.T @ weights.double().T + bias.double()


def error_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).square().mean() / exact.var())


def test_the_mask_must_point_the_right_way() -> None:
    y, estimate = estimated()
    threshold = threshold_for_ratio(estimate, "tanh", 0.5)
    mask = sensitive(estimate, "tanh", threshold)
    right, wrong = (
        error_of(torch.where(chosen, y, estimate).mul(2).tanh(), y.mul(2).tanh())
        for chosen in (mask, ~mask)
    )
    assert right == pytest.approx(0.140, rel=0.15)
    assert wrong == pytest.approx(0.349, rel=0.15)


@pytest.mark.parametrize(
    ("ratio", "error", "false"), [(0.3, 0.014, 0.098), (0.5, 0.076, 0.207), (0.7, 0.189, 0.328)]
)
def test_what_relu_loses(ratio: float, error: float, false: float) -> None:
    y, estimate = estimated()
    mask = sensitive(estimate, "relu", threshold_for_ratio(estimate, "relu", ratio))
    mixed = torch.where(mask, y, estimate)
    assert error_of(mixed.relu(), y.relu()) == pytest.approx(error, rel=0.25)
    assert float((y[~mask] > 0).double().mean()) == pytest.approx(false, rel=0.15)
    assert error_of(estimate.relu(), y.relu()) == pytest.approx(0.452, rel=0.15)


def test_fewer_bits_cost_more_and_four_cost_little() -> None:
    left = {}
    for bits in (8, 4, 2):
        layer, x = layer_on("relu", bits)
        exact = layer.big(x).detach()
        left[bits] = float((layer.little(x) - exact).var() / exact.var())
    assert left[8] < left[4] < left[2]
    assert left[4] - left[8] < 0.05
    assert left[2] > 1.3 * left[8]


def test_batch_norm_folds_with_the_bias() -> None:
    conv, norm = nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3, eps=0.0).eval()
    with torch.no_grad():
        conv.weight.copy_(W[:, :, None, None])
        conv.bias.copy_(B)
        norm.weight.fill_(2)
        norm.bias.fill_(0.3)
        norm.running_mean.fill_(0.4)
        norm.running_var.fill_(0.25)
    found = fold_batch_norm(conv, norm)(X[None, :, None, None]).flatten()
    assert found.tolist() == pytest.approx([11.1, -15.3, -1.7], abs=1e-5)
    random = nn.Sequential(nn.Conv2d(5, 7, 3, 2, 1, bias=False), nn.BatchNorm2d(7)).train()
    random(normal(8, 5, 9, 9))
    random.eval()
    x = normal(2, 5, 9, 9, seed=1)
    torch.testing.assert_close(fold_batch_norm(*random)(x), random(x), rtol=1e-4, atol=1e-5)


# Properties.


def test_everything_computed_is_the_dense_layer_and_nothing_the_little_one() -> None:
    layer, x = layer_on("tanh", 4)
    assert torch.equal(layer(x), torch.tanh(nn.functional.linear(x, layer.weight, layer.bias)))
    layer.switch.threshold.fill_(-1.0)
    assert torch.equal(layer(x), torch.tanh(layer.little(x)))
    assert layer.switch.ratio < 1  # it counted both calls
    compute_everything(layer)
    layer.switch.reset()
    layer(x)
    assert layer.switch.ratio == 0


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_the_error_falls_with_the_rows_computed(activation: Activation) -> None:
    layer, x = layer_on(activation, 4)
    exact = layer.switch.apply_activation(layer.big(x))
    errors = []
    for count in (0, 32, 64, 96, 128):
        layer.switch.count = count
        errors.append(float((layer(x) - exact).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_a_threshold_keeps_the_share_it_was_chosen_for(
    activation: Activation, ratio: float
) -> None:
    estimates = normal(1000)
    threshold = threshold_for_ratio(estimates, activation, ratio)
    kept = ~sensitive(estimates, activation, threshold)
    assert kept.float().mean().item() == pytest.approx(ratio)
    with pytest.raises(NasError, match="between 0 and 1"):
        threshold_for_ratio(estimates, activation, 1.5)
    with pytest.raises(NasError, match="no finite estimate"):
        threshold_for_ratio(torch.tensor([torch.nan]), activation, ratio)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_nan_is_computed(activation: Activation) -> None:
    assert sensitive(torch.tensor([torch.nan]), activation, 0.0).all()
    layer, x = layer_on(activation, 4)
    set_ratio(layer, 0.5, lambda: layer(x))
    broken = x[:2].clone()
    broken[0, 3] = torch.nan
    assert layer(broken)[0].isnan().all()
    assert torch.equal(layer(broken)[1], layer(x[:2])[1])


def test_fitting_refuses_what_is_not_finite_and_what_saw_nothing() -> None:
    layer = DualModuleLinear(nn.Linear(8, 4), "relu")
    with pytest.raises(NasError, match="not finite"):
        fit(layer, lambda: layer(torch.full((2, 8), torch.inf)))
    with pytest.raises(NasError, match="saw no input"):
        fit(layer, lambda: None)
    with pytest.raises(NasError, match="without samples"):
        LeastSquares(2, 2).solve()
    with pytest.raises(NasError, match="2 to 8 bits"):
        quantise(torch.ones(3), 1)


# Layers.


def test_a_feed_forward_block_drops_rows_and_columns_together() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(64, 256), nn.Linear(256, 64)
    block = DualModuleFFN(first, second, projected=32)
    x = spectrum(2000, 64, 1.0, 1).float() * 5
    dense = second(torch.relu(first(x)))
    torch.testing.assert_close(block(x), dense)
    fit(block, lambda: block(x))
    set_ratio(block, 0.6, lambda: block(x))
    mask = sensitive(block.first.little(x), "relu", block.first.switch.threshold)
    rows = torch.where(mask, torch.relu(first(x)), torch.zeros(()))
    torch.testing.assert_close(block(x), second(rows))
    assert float((block(x) - dense).norm() / dense.norm()) < 0.3
    with pytest.raises(NasError, match="puts out 256 features, the second takes 65"):
        DualModuleFFN(first, nn.Linear(65, 3))


def test_lstm_layers_take_the_weights_of_pytorchs() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(12, 20, num_layers=2, batch_first=True)
    ours = DualModuleLSTM.of(lstm, projected=8)
    x = normal(3, 7, 12)
    expected, (h, c) = lstm(x)
    found, states = ours(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(states[1][0], h[1])
    torch.testing.assert_close(states[0][1], c[0])
    cell = nn.LSTMCell(12, 20, bias=False)
    torch.testing.assert_close(DualModuleLSTMCell.of(cell)(x[:, 0])[0], cell(x[:, 0])[0])


def test_gru_cells_take_the_weights_of_pytorchs() -> None:
    torch.manual_seed(0)
    cell = nn.GRUCell(12, 20)
    ours, x, h = DualModuleGRUCell(cell, projected=8), normal(5, 12), normal(5, 20, seed=1)
    torch.testing.assert_close(ours(x, h), cell(x, h))
    torch.testing.assert_close(ours(x), cell(x))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_layers_are_fitted_to_their_own_states(kind: str) -> None:
    torch.manual_seed(0)
    x = spectrum(64 * 10, 24, 1.0, 1).float().view(64, 10, 24) * 3
    layer: nn.Module
    if kind == "lstm":
        layer = DualModuleLSTM.of(nn.LSTM(24, 32, batch_first=True), projected=12)

        def run() -> torch.Tensor:
            return layer(x)[0][:, -1]
    else:
        layer = DualModuleGRUCell(nn.GRUCell(24, 32), projected=12)

        def run() -> torch.Tensor:
            h = None
            for step in x.unbind(1):
                h = layer(step, h)
            assert h is not None
            return h

    dense = run()
    fit(layer, run)
    errors = []
    for ratio in (1.0, 0.5, 0.2, 0.0):
        set_ratio(layer, ratio, run)
        errors.append(float((run() - dense).norm() / dense.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.8 * errors[0]
    assert errors[-1] == 0


def test_convolutions_are_estimated_from_projected_channels() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, stride=2, padding=1)
    layer = DualModuleConv2d(conv, projected=8, bits=8)
    mix = normal(16, 4, seed=7)
    x = torch.einsum("dc,bchw->bdhw", mix, normal(20, 4, 9, 9)) + 0.1 * normal(20, 16, 9, 9, seed=1)
    dense = torch.relu(conv(x))
    torch.testing.assert_close(layer(x), dense)
    fit(layer, lambda: layer(x))
    assert layer.estimate(x).shape == dense.shape
    set_ratio(layer, 0.4, lambda: layer(x))
    layer.switch.reset()
    error = float((layer(x) - dense).norm() / dense.norm())
    assert layer.switch.ratio == pytest.approx(0.4, abs=0.01)
    assert error < 0.15
    with pytest.raises(NasError, match="one group"):
        DualModuleConv2d(nn.Conv2d(4, 4, 3, groups=2))


# Calibration of whole models.


def model_and_data() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    layers = [DualModuleLinear(nn.Linear(64, 96), "relu", projected=24)]
    layers.append(DualModuleLinear(nn.Linear(96, 48), "tanh", projected=24))
    return nn.Sequential(*layers, nn.Linear(48, 5)), spectrum(3000, 64, 1.0, 1).float() * 6


def test_a_report_counts_what_happened() -> None:
    model, x = model_and_data()
    fit(model, lambda: model(x))
    set_ratio(model, 0.5, lambda: model(x))
    first, second = report(model, lambda: model(x))
    assert (first.name, second.name) == ("0", "1")
    assert first.ratio == pytest.approx(0.5, abs=0.01)
    assert 0 < first.error < 0.5
    exact, estimate = model[0].big(x), model[0].little(x)
    kept = estimate < model[0].switch.threshold
    assert first.false_skips == pytest.approx(float((exact[kept] > 0).float().mean()))
    assert second.false_skips == 0
    assert first.memory_ratio == pytest.approx(1 - first.ratio + 24 * 4 / 8 / (64 * 4))
    assert first.full_memory_ratio > first.memory_ratio
    assert first.operation_ratios["free"] < first.operation_ratios["full"]


def test_one_tolerance_gives_each_layer_a_threshold() -> None:
    model, x = model_and_data()
    fit(model, lambda: model(x))
    set_tolerance(model, 0.05, lambda: model(x))
    relu, tanh = (layer.switches()[0].threshold.item() for layer in dual_layers(model).values())
    delta = float((model[0].little(x) - model[0].big(x)).abs().mean())
    assert relu == pytest.approx(0.05 - delta, rel=1e-4)
    assert tanh > 0
    loose = model(x)
    set_tolerance(model, 1e-6, lambda: model(x))
    dense = model[2](torch.tanh(model[1].big(torch.relu(model[0].big(x)))))
    assert (model(x) - dense).norm() < (loose - dense).norm()


def test_a_search_stays_within_what_is_allowed() -> None:
    model, x = model_and_data()
    fit(model, lambda: model(x))
    dense = model(x).argmax(1)

    def score() -> float:
        return float((model(x).argmax(1) == dense).float().mean())

    chosen = search_thresholds(model, score, lambda: model(x), allowed=0.08)
    assert list(chosen) == ["0", "1"]
    assert score() >= 0.92
    assert max(chosen.values()) >= 0.2
    assert search_thresholds(model, score, lambda: model(x), allowed=-1.0) == {"0": 0.0, "1": 0.0}
    assert score() == 1


def test_a_state_dict_brings_a_layer_back() -> None:
    layer, x = layer_on("relu", 4)
    set_ratio(layer, 0.5, lambda: layer(x))
    again = DualModuleLinear(nn.Linear(256, 128), "relu", projected=64, seed=5)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))


def test_parts_have_scales_of_their_own() -> None:
    little = LittleModule((8, 8), 4, projected=4, bits=8)
    equations = little.estimator.equations()
    x, h = normal(500, 8) * 1000, normal(500, 8, seed=1) / 1000
    u = torch.cat(little.project(x, h), -1)
    y = torch.cat([u[:, :2] / 1000, u[:, 4:6] * 1000], 1)
    equations.add(u, y)
    weights, bias = equations.solve()
    torch.testing.assert_close(u @ weights.T + bias, y, rtol=1e-2, atol=1e-2)


def test_the_ways_of_a_feed_forward_block_refuse_in_words() -> None:
    work = feed_forward_workload(32, 64, 8, dtype="float32")
    explained = explain(work, CPU)
    assert [choice.implementation.name for choice in explained.choices] == [
        "dual",
        "dense",
        "lossless",
    ]
    assert "9.0 or later" in explained.choices[0].reason
    assert select(work, CPU).name == "dense"


def test_the_dense_way_is_called_on_operands_of_its_own() -> None:
    work = feed_forward_workload(32, 64, 8, dtype="float32")
    (entry,) = [item for item in implementations(work.op) if item.name == "dense"]
    y = OPERANDS.get(work.op)(work, entry, CPU)()
    assert y.shape == (1, 8)
    assert torch.isfinite(y).all()
