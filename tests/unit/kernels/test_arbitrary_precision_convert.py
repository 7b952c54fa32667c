"""Networks of a few bits from existing ones."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from kernels.arbitrary_precision import convert
from kernels.arbitrary_precision.convert import calibrate, candidates, pack, to_arbitrary_precision
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.training import QuantConv2d, QuantLinear
from kernels.errors import NasError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def test_the_first_and_the_last_layer_are_kept() -> None:
    model = to_arbitrary_precision(network(), "w2a4")
    kinds = {name: type(module) for name, module in model.named_children()}
    assert (kinds["0"], kinds["5"], kinds["11"]) == (nn.Conv2d, nn.Conv2d, nn.Linear)
    assert (kinds["3"], kinds["9"]) == (QuantConv2d, QuantLinear)
    assert candidates(model) == ["0", "11"]


def test_layers_have_the_bits_that_are_named() -> None:
    model = to_arbitrary_precision(network(), {"0": "w8a8", "9": Precision(1, 2)})
    assert str(model[0].precision) == "w8a8"
    assert str(model[9].precision) == "w1a2"
    assert isinstance(model[3], nn.Conv2d)
    assert not isinstance(model[3], QuantConv2d)


def test_weights_are_the_models_and_many_bits_change_little() -> None:
    dense, model = network().eval(), network()
    to_arbitrary_precision(model, "w8a8").eval()
    torch.testing.assert_close(model[3].weight, dense[3].weight)
    calibrate(model, [images(), images(1)])
    close = (model(images(2)) - dense(images(2))).norm() / dense(images(2)).norm()
    assert close < 0.03


def test_a_packed_network_computes_what_the_trained_one_does() -> None:
    model = to_arbitrary_precision(network(), "w2a3").eval()
    calibrate(model, [images()])
    expected = model(images(3))
    packed = pack(model)
    assert [type(packed[i]) for i in (3, 9)] == [APConv2d, APLinear]
    torch.testing.assert_close(packed(images(3)), expected, rtol=1e-3, atol=1e-3)


def test_calibration_leaves_the_mode_and_hooks_as_they_were() -> None:
    model = to_arbitrary_precision(network(), "w2a3").train()
    statistics = model[1].running_mean.clone()
    calibrate(model, [images()])
    assert model.training
    assert torch.equal(model[1].running_mean, statistics)
    assert not model[3]._forward_pre_hooks


def test_one_batch_sets_layers_as_its_parts_do() -> None:
    whole, parts = (to_arbitrary_precision(network(), "w2a3").eval() for _ in range(2))
    calibrate(whole, [images()])
    calibrate(parts, images().chunk(2))
    for name, found in parts.state_dict().items():
        torch.testing.assert_close(whole.state_dict()[name], found)
    assert float(whole[3].activation_step.detach()) != 1.0


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"5": "w1a2"}, "only convolutions of one group, it has 16"),
        ({"1": "w1a2"}, "it is a BatchNorm2d"),
        ({"nowhere": "w1a2"}, "Unknown layer 'nowhere'"),
        ({"3": "w9a2"}, "1 to 8 weight bits"),
    ],
)
def test_layers_that_cannot_be_replaced_are_refused(bits: dict[str, str], message: str) -> None:
    with pytest.raises(NasError, match=message):
        to_arbitrary_precision(network(), bits)


def test_calibration_needs_a_batch() -> None:
    with pytest.raises(NasError, match="at least one batch"):
        calibrate(to_arbitrary_precision(network(), "w2a3"), [])


def test_the_example() -> None:
    assert doctest.testmod(convert, extraglobs={"nn": nn}).failed == 0
