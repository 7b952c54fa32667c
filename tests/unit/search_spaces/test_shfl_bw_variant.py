"""The variant ``shfl_bw``: packed, plain, exported in both forms, audited, loaded elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kernels.errors import NasError
from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear
from kernels.shfl_bw.pattern import as_matrix, is_shfl_bw
from kernels.shfl_bw.training import SparseTraining, Sparsity
from search_spaces.architecture import Architecture
from search_spaces.export.load import load
from search_spaces.export.write import Order
from search_spaces.pack import pack
from search_spaces.variants import realise, tolerance_of
from tests.exporting import audited_source, trained

NET = Architecture.parse(
    "input 3x8x8; conv 16 k3 bn relu; conv 32 k3 s2 bias silu; gap; flatten; linear 48 gelu; "
    "linear 30 nobias tanh; linear 5"
)
SPARSE = (
    NET.with_variant([1], "shfl_bw(V=8,density=0.5)")
    .with_variant([2], "shfl_bw(V=16,density=0.25)")
    .with_variant([5], "shfl_bw(V=8,density=0.25)")
    .with_variant([6], "shfl_bw(V=8,density=0.4)")  # 8 does not divide 30 rows
)
X = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def outputs(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = module.eval()(X)
    return y


def test_both_forms_compute_the_same_with_the_density_that_was_asked_for() -> None:
    module = trained(NET)
    packed, plain = pack(SPARSE, module), pack(SPARSE, module, "plain")
    difference = (outputs(packed) - outputs(plain)).abs().max() / outputs(plain).abs().max()
    assert difference < 1e-5 < tolerance_of(SPARSE)
    assert [type(m) for m in packed.modules() if isinstance(m, ShflBWConv2d | ShflBWLinear)] == [
        *(ShflBWConv2d, ShflBWConv2d, ShflBWLinear, ShflBWLinear)
    ]
    assert not any("shfl" in type(m).__module__ for m in plain.modules())
    weights = [m.weight for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    settings = ((8, 0.5), (16, 0.25), (8, 0.25), (8, 0.4))
    for weight, (v, density) in zip(weights, settings, strict=False):
        mask = as_matrix(weight.detach()) != 0
        assert is_shfl_bw(mask, v)
        assert float(mask.float().mean()) == pytest.approx(density, abs=0.03)
    assert bool((weights[-1] != 0).all())


def test_a_weight_that_was_trained_on_a_mask_keeps_it() -> None:
    module = trained(NET)
    name = next(name for name, m in module.named_modules() if isinstance(m, nn.Linear))
    sparse = SparseTraining(module, {name: Sparsity(8, 0.25)})
    sparse.prune()
    weight = module.get_submodule(name).weight
    with torch.no_grad():  # magnitudes of another order: pruning anew would choose others
        weight.mul_(torch.rand_like(weight).pow(4))
    only = NET.with_variant([5], "shfl_bw(V=8,density=0.25)")
    plain = pack(only, module, "plain")
    assert torch.equal(plain.get_submodule(name).weight, weight)  # type: ignore[arg-type]
    assert torch.allclose(outputs(pack(only, module)), outputs(module), atol=1e-5)


def test_packed_exports_are_whole_audited_and_load_again(tmp_path: Path) -> None:
    order = Order("packed", ("python", "pt2"))
    module = trained(NET)
    source = audited_source(SPARSE, module, order, tmp_path / "packed")
    assert "from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear" in source
    assert 'ShflBWLinear(32, 48, v=8, density=0.25, activation="gelu")' in source
    assert torch.equal(outputs(load(tmp_path / "packed")), outputs(pack(SPARSE, module)))


def test_plain_exports_need_torch_alone(tmp_path: Path) -> None:
    order = Order("plain", ("python", "onnx"))
    module = trained(NET)
    source = audited_source(SPARSE, module, order, tmp_path / "plain")
    assert "kernels" not in source


@pytest.mark.parametrize(
    ("nodes", "variant", "message"),
    [
        ([5], "shfl_bw(V=8)", r"Expected shfl_bw\(V=<rows.*got shfl_bw\(V=8\)"),
        ([5], "shfl_bw(V=x,density=0.5)", "got shfl_bw"),
        ([5], "shfl_bw(V=8,density=1.5)", "above 0 and up to 1"),
        ([5], "shfl_bw(V=8,density=0.5,k=1)", "got shfl_bw"),
        ([5, 6], "shfl_bw(V=8,density=0.5)", "takes one linear layer or convolution, not linear"),
        ([3], "shfl_bw(V=8,density=0.5)", "not gap"),
    ],
)
def test_settings_and_layers_that_cannot_be_are_one_line(
    nodes: list[int], variant: str, message: str
) -> None:
    with pytest.raises(NasError, match=message) as caught:
        realise(NET.with_variant(nodes, variant), "packed")
    assert "\n" not in str(caught.value)
    grouped = Architecture.parse("input 8x4x4; conv 8 k3 g2").with_variant(
        [1], "shfl_bw(V=4,density=0.5)"
    )
    with pytest.raises(NasError, match="convolutions of one group"):
        realise(grouped, "plain")
