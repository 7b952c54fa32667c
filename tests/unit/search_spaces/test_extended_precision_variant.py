"""The variant ``fp32_emulated``: both forms compute the same, exports are audited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kernels.errors import NasError
from kernels.extended_precision.module import Linear, PointwiseConv2d
from search_spaces.architecture import Architecture
from search_spaces.export.load import load
from search_spaces.export.write import Order
from search_spaces.pack import pack
from search_spaces.variants import realise, tolerance_of
from tests.exporting import audited_source, trained

NET = Architecture.parse(
    "input 3x8x8; conv 16 k3 bn relu; conv 32 bias silu; gap; flatten; linear 48 gelu; linear 5"
)
EMULATED = (
    NET.with_variant([2], "fp32_emulated")
    .with_variant([5], "fp32_emulated")
    .with_variant([6], "fp32_emulated")
)
X = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def outputs(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = module.eval()(X)
    return y


def test_products_of_halves_compute_what_the_dense_layers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAS_KERNEL_EXTENDED_PRECISION", "reference")  # a CPU takes torch otherwise
    module = trained(NET)
    packed, plain = pack(EMULATED, module), pack(EMULATED, module, "plain")
    assert torch.equal(outputs(plain), outputs(module))
    difference = (outputs(packed) - outputs(plain)).abs().max() / outputs(plain).abs().max()
    assert 0 < difference < tolerance_of(EMULATED)
    ours = [type(m) for m in packed.modules() if isinstance(m, Linear | PointwiseConv2d)]
    assert ours == [PointwiseConv2d, Linear, Linear]
    assert not any(isinstance(m, Linear | PointwiseConv2d) for m in plain.modules())


def test_packed_exports_are_audited_and_load_again(tmp_path: Path) -> None:
    order = Order("packed", ("python", "pt2"))
    module = trained(NET)
    source = audited_source(EMULATED, module, order, tmp_path / "packed")
    assert "from kernels.extended_precision.module import Linear" in source
    assert torch.equal(outputs(load(tmp_path / "packed")), outputs(pack(EMULATED, module)))


@pytest.mark.parametrize(
    ("nodes", "variant", "message"),
    [
        ([5], "fp32_emulated(bits=3)", "has no settings"),
        ([1], "fp32_emulated", "takes 1x1 convolutions"),
        ([5, 6], "fp32_emulated", "takes one linear layer or 1x1 convolution, not linear"),
        ([3], "fp32_emulated", "not gap"),
    ],
)
def test_layers_that_are_no_product_are_one_line(
    nodes: list[int], variant: str, message: str
) -> None:
    with pytest.raises(NasError, match=message) as caught:
        realise(NET.with_variant(nodes, variant), "packed")
    assert "\n" not in str(caught.value)
