"""The variants ``w1a1`` to ``w8a8``: packed, plain, exported in both forms, audited, loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kernels.arbitrary_precision.convert import pack as pack_layers
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.training import QuantConv2d, QuantLinear
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.load import load
from search_spaces.export.write import Order
from search_spaces.pack import pack, prepare
from search_spaces.variants import realise, system_of, tolerance_of
from tests.exporting import audited_source, trained

NET = Architecture.parse(
    "input 3x8x8; conv 16 k3 bn relu; conv 24 k3 s2 bias silu; conv 24 k1 bn; gap; flatten; "
    "linear 48 gelu; linear 32 nobias tanh; linear 5"
)
FEW = (
    NET.with_variant([1], "w8a8")
    .with_variant([2], "w1a2")
    .with_variant([3], "w4a4")
    .with_variant([6], "w2a3")
    .with_variant([7], "w1a1")
)
X = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def prepared() -> nn.Module:
    return prepare(FEW, trained(NET), [X, X + 1])


def outputs(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = module.eval()(x)
    return y


def test_both_forms_count_the_same_whole_numbers() -> None:
    module = prepared()
    packed, plain = pack(FEW, module), pack(FEW, module, "plain")
    assert torch.equal(outputs(packed), outputs(plain))
    found = [str(m.precision) for m in packed.modules() if isinstance(m, APConv2d | APLinear)]
    assert found == ["w8a8", "w1a2", "w4a4", "w2a3", "w1a1"]
    assert any(m.zero for m in packed.modules() if isinstance(m, APConv2d))
    assert not any("arbitrary_precision.module" in type(m).__module__ for m in plain.modules())
    trained_form = outputs(pack_layers(module))
    torch.testing.assert_close(outputs(packed), trained_form, rtol=1e-5, atol=1e-6)


def test_not_a_number_becomes_the_lowest_code_in_both_forms() -> None:
    module, x = prepared(), X.clone()
    x[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    packed = outputs(pack(FEW, module), x)
    assert bool(packed.isfinite().all())
    assert torch.equal(packed, outputs(pack(FEW, module, "plain"), x))


def test_training_goes_on_from_the_calibrated_network() -> None:
    module = prepared()
    layers = [m for m in module.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    assert len(layers) == 5
    before = layers[1].activation_step.item()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        loss = module.train()(X).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert layers[1].activation_step.item() != before
    packed = pack(FEW, module)
    assert torch.equal(outputs(packed), outputs(pack(FEW, module, "plain")))


def test_packed_exports_are_whole_audited_and_load_again(tmp_path: Path) -> None:
    order = Order("packed", ("python", "pt2"))
    module = prepared()
    source = audited_source(FEW, module, order, tmp_path / "packed")
    assert "from kernels.arbitrary_precision.module import APConv2d, APLinear" in source
    assert "APConv2d(16, 24, (3, 3), Precision(1, 2), stride=(2, 2), padding=(1, 1))" in source
    assert torch.equal(outputs(load(tmp_path / "packed")), outputs(pack(FEW, module)))


def test_plain_exports_need_torch_alone(tmp_path: Path) -> None:
    order = Order("plain", ("python", "onnx"))
    module = prepared()
    source = audited_source(FEW, module, order, tmp_path / "plain")
    assert "kernels" not in source


def test_a_network_that_was_not_calibrated_is_refused_in_one_line() -> None:
    with pytest.raises(NasError, match="w8a8 has no steps to round inputs to") as caught:
        pack(FEW, trained(NET))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "variant", "message"),
    [
        ([6], "w1a2(step=1)", r"w1a2 has no settings, got w1a2\(step=1\)"),
        ([6, 7], "w1a2", "takes one linear layer or convolution, not linear"),
        ([4], "w1a2", "not gap"),
        ([6], "w9a2", "nothing here executes that; variants that are: .*w1a1 to w8a8"),
    ],
)
def test_settings_and_layers_that_cannot_be_are_one_line(
    nodes: list[int], variant: str, message: str
) -> None:
    with pytest.raises(NasError, match=message) as caught:
        realise(NET.with_variant(nodes, variant), "packed")
    assert "\n" not in str(caught.value)
    grouped = Architecture.parse("input 8x4x4; conv 8 k3 g2").with_variant([1], "w1a2")
    with pytest.raises(NasError, match="convolutions of one group"):
        realise(grouped, "plain")


def test_a_network_without_low_bit_layers_needs_no_preparation() -> None:
    module = trained(NET)
    assert prepare(NET, module, []) is module
    assert prepare(NET.with_variant([6], "fp32_emulated"), module, []) is module
    with pytest.raises(NasError, match="at least one batch"):
        prepare(FEW, module, [])


def test_every_pair_of_bits_is_a_variant() -> None:
    for p in range(1, 9):
        for q in range(1, 9):
            network = NET.with_variant([2], f"w{p}a{q}")
            assert system_of(network.regions[0]) is system_of(FEW.regions[0])
    assert tolerance_of(FEW) == 1e-4
