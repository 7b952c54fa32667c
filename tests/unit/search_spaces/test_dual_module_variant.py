"""The variant ``dual_module``: exact until calibrated, then it skips; exports are audited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from evaluators.audit.truth import Truth
from kernels.dual_module.calibrate import fit, set_ratio
from kernels.dual_module.module import DualFeedForward, DualLinear
from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.export.load import load
from search_spaces.export.write import Order, export_network
from search_spaces.pack import pack
from search_spaces.variants import realise
from tests.exporting import audited_source, trained

NET = Architecture.parse(
    "input 3x8x8; conv 16 k3 bn relu; gap; flatten; linear 48 tanh; linear 64 relu; linear 24; "
    "linear 5"
)
DUAL = NET.with_variant([4], "dual_module").with_variant([5, 6], "dual_module(bits=8)")
X = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def outputs(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = module.eval()(X)
    return y


def test_both_forms_compute_what_the_dense_layers_do_until_calibrated() -> None:
    module = trained(NET)
    packed, plain = pack(DUAL, module), pack(DUAL, module, "plain")
    torch.testing.assert_close(outputs(plain), outputs(module))
    torch.testing.assert_close(outputs(packed), outputs(module))
    layers = [m for m in packed.modules() if isinstance(m, DualLinear | DualFeedForward)]
    assert [type(m) for m in layers] == [DualLinear, DualFeedForward]
    assert layers[0].little.estimator.bits == 4
    assert layers[1].first.little.estimator.bits == 8
    assert not any(isinstance(m, DualLinear | DualFeedForward) for m in plain.modules())


def test_a_calibrated_network_skips_rows_and_stays_near() -> None:
    module = trained(NET)
    packed, run = pack(DUAL, module), lambda: packed(X)
    fit(packed, run)
    set_ratio(packed, 0.5, run)
    switches = [m for m in packed.modules() if type(m).__name__ == "Switch"]
    for switch in switches:
        switch.reset()
    y, wanted = outputs(packed), outputs(module)
    assert all(0.4 < switch.ratio < 0.6 for switch in switches)
    assert 0 < float((y - wanted).norm() / wanted.norm()) < 0.2


def test_packed_exports_are_audited_and_load_again(tmp_path: Path) -> None:
    order = Order("packed", ("python", "pt2"))
    module = trained(NET)
    source = audited_source(DUAL, module, order, tmp_path / "packed")
    assert "from kernels.dual_module.module import DualFeedForward, DualLinear" in source
    torch.testing.assert_close(outputs(load(tmp_path / "packed")), outputs(module))


def test_plain_exports_are_the_big_module(tmp_path: Path) -> None:
    order = Order("plain", ("python",))
    truth = Truth(DUAL, trained(NET), order)
    export_network(DUAL, truth.module, tmp_path / "plain", order)
    source = (tmp_path / "plain" / "model.py").read_text()
    assert "Dual" not in source
    assert "kernels" not in source


@pytest.mark.parametrize(
    ("nodes", "variant", "message"),
    [
        ([4], "dual_module(ratio=1)", "Expected dual_module"),
        ([4], "dual_module(bits=9)", "Expected dual_module"),
        ([7], "dual_module", "takes one linear layer with relu"),
        ([1], "dual_module", "not conv"),
    ],
)
def test_layers_without_a_flat_part_are_one_line(
    nodes: list[int], variant: str, message: str
) -> None:
    with pytest.raises(NasError, match=message) as caught:
        realise(NET.with_variant(nodes, variant), "packed")
    assert "\n" not in str(caught.value)
