"""Arbitrary precision: the worked numbers of the notes, exactness, layers and their training."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kernels.arbitrary_precision import exact, int8_path
from kernels.arbitrary_precision.encodings import (
    Encoding,
    bipolar,
    check_sums,
    combination,
    plus_minus_one,
    twos_complement,
    unsigned,
    weight_encoding,
)
from kernels.arbitrary_precision.layout import (
    output_order,
    padded,
    weight_codes,
    weight_image,
    weight_planes,
)
from kernels.arbitrary_precision.module import APConv2d, APLinear
from kernels.arbitrary_precision.operands import Geometry
from kernels.arbitrary_precision.packed import LowBit, pack_rows
from kernels.arbitrary_precision.planes import (
    code_values,
    from_codes,
    pack_planes,
    to_codes,
    unpack_planes,
)
from kernels.arbitrary_precision.precision import Precision
from kernels.arbitrary_precision.quantise import (
    activation_step,
    fake_binary,
    fake_quantise,
    integers,
    weight_steps,
)
from kernels.arbitrary_precision.reference import integer_product, plane_counts
from kernels.arbitrary_precision.training import QuantConv2d, QuantLinear
from kernels.errors import NasError

W_SIGNS = [1, -1, 1, 1, -1, -1, 1, -1]
X_UNSIGNED = [0, 3, 2, 1, 3, 0, 1, 2]
PAIRS = tuple(product(range(1, 9), repeat=2))


def codes_of(numbers: list[int], encoding: Encoding) -> torch.Tensor:
    return to_codes(torch.tensor(numbers), encoding)


def planes_of(numbers: list[int], encoding: Encoding) -> torch.Tensor:
    return pack_planes(codes_of(numbers, encoding), encoding.bits)[None]


def product_of(w: list[int], x: list[int], w_enc: Encoding, x_enc: Encoding) -> int:
    found = integer_product(planes_of(w, w_enc), planes_of(x, x_enc), w_enc, x_enc, len(w))
    return int(found.item())


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 1 << bits, shape, dtype=np.uint8))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Worked numbers: papers/apnn_tc.md section 10, A to E.


def test_a_binary_weights_times_two_bits() -> None:
    w, x = planes_of(W_SIGNS, plus_minus_one()), planes_of(X_UNSIGNED, unsigned(2))
    assert w.tolist() == [[[0x4D]]]
    assert x.tolist() == [[[0x5A], [0x96]]]
    assert plane_counts(w, x).flatten().tolist() == [2, 1]
    c = combination(plus_minus_one(), unsigned(2), 8)
    assert (c.y, c.sum_w, c.sum_x, c.constant) == (2, 0, -1, 0)
    assert product_of(W_SIGNS, X_UNSIGNED, plus_minus_one(), unsigned(2)) == -4


def test_b_both_binary() -> None:
    x = [1, 1, -1, 1, -1, 1, -1, -1]
    assert plane_counts(planes_of(W_SIGNS, plus_minus_one()), planes_of(x, plus_minus_one())) == 2
    assert combination(plus_minus_one(), plus_minus_one(), 8).constant == 8
    assert product_of(W_SIGNS, x, plus_minus_one(), plus_minus_one()) == 0


def test_c_twos_complement() -> None:
    w = [-4, 3, -1, 0, 2, -3, 1, -2]
    assert codes_of(w, twos_complement(3)).tolist() == [4, 3, 7, 0, 2, 5, 1, 6]
    counts = plane_counts(planes_of(w, twos_complement(3)), planes_of(X_UNSIGNED, unsigned(2)))
    assert counts.view(3, 2).tolist() == [[2, 2], [2, 4], [0, 2]]
    assert product_of(w, X_UNSIGNED, twos_complement(3), unsigned(2)) == 10


def test_d_bipolar() -> None:
    w = [-3, 3, 1, -1, 3, -1, 1, -3]
    assert codes_of(w, bipolar(2)).tolist() == [0, 3, 2, 1, 3, 1, 2, 0]
    assert product_of(w, X_UNSIGNED, bipolar(2), unsigned(2)) == 14


def lcg(seed: int, count: int) -> list[int]:
    found = []
    for _ in range(count):
        seed = (1103515245 * seed + 12345) % 2**31
        found.append((seed >> 16 & 0x7FFF) % 4)
    return found


def test_e_a_length_that_is_no_multiple_of_anything() -> None:
    w = torch.tensor(lcg(1, 1200), dtype=torch.uint8).view(4, 300)
    x = torch.tensor(lcg(2, 900), dtype=torch.uint8).view(3, 300)
    assert w[0, :8].tolist() == [2, 2, 1, 3, 3, 3, 2, 3]
    assert x[0, :8].tolist() == [0, 1, 3, 2, 1, 3, 0, 1]
    planes = pack_planes(w, 2, multiple=128), pack_planes(x, 2, multiple=128)
    found = integer_product(*planes, unsigned(2), unsigned(2), 300).T
    rows = [[745, 758, 729], [710, 674, 674], [663, 661, 689], [656, 684, 626]]
    assert found.tolist() == rows
    counts = plane_counts(*planes)
    assert counts[0, 0, 0].tolist() == [95, 86, 79]
    assert counts[1, 1, 0].tolist() == [79, 88, 80]
    assert w.sum(1).tolist() == [478, 443, 438, 442]
    assert x.sum(1).tolist() == [466, 466, 452]
    low = [(plane & 1) for plane in (w, x)]
    low_planes = [pack_planes(plane, 1, multiple=128) for plane in low]
    binary = integer_product(*low_planes, plus_minus_one(), plus_minus_one(), 300).T
    assert binary[0].tolist() == [24, 36, 4]


# Properties.


@settings(deadline=None, max_examples=80)
@given(
    p=st.integers(1, 8),
    q=st.integers(1, 8),
    kinds=st.tuples(st.sampled_from("ustb"), st.sampled_from("uzsb")),
    k=st.sampled_from((1, 31, 32, 127, 128, 129, 255, 256, 257, 1000)),
    m=st.sampled_from((1, 7, 8)),
    n=st.sampled_from((1, 7, 8)),
    seed=st.integers(0, 2**16),
)
def test_counting_planes_gives_the_product(
    p: int, q: int, kinds: tuple[str, str], k: int, m: int, n: int, seed: int
) -> None:
    encodings = {
        "u": unsigned,
        "z": lambda bits: unsigned(bits, (1 << bits) // 3),
        "s": twos_complement,
        "b": bipolar,
        "t": weight_encoding,
    }
    w_enc, x_enc = encodings[kinds[0]](p), encodings[kinds[1]](q)
    rng = np.random.default_rng(seed)
    w, x = random_codes(rng, (m, k), p), random_codes(rng, (n, k), q)
    found = integer_product(pack_planes(w, p), pack_planes(x, q, multiple=64), w_enc, x_enc, k)
    expected = from_codes(x, x_enc).numpy() @ from_codes(w, w_enc).numpy().T
    assert np.array_equal(found.numpy(), expected)


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(1, 8), k=st.integers(0, 300), multiple=st.sampled_from((8, 64, 1024)))
def test_planes_unpack_to_what_was_packed(bits: int, k: int, multiple: int) -> None:
    codes = random_codes(np.random.default_rng(k), (3, k), bits)
    planes = pack_planes(codes, bits, multiple=multiple)
    assert planes.shape == (3, bits, -(-k // multiple) * multiple // 8)
    assert torch.equal(unpack_planes(planes, k), codes)


def test_the_order_of_k_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    w, x = random_codes(rng, (5, 200), 3), random_codes(rng, (4, 200), 2)
    order = torch.from_numpy(rng.permutation(200))
    encodings = (twos_complement(3), unsigned(2))
    first = integer_product(pack_planes(w, 3), pack_planes(x, 2), *encodings, 200)
    second = integer_product(
        pack_planes(w[:, order], 3), pack_planes(x[:, order], 2), *encodings, 200
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("p", "q", "longest"),
    [(4, 4, 2**31 // 225), (2, 8, 2**31 // 765), (8, 8, 2**31 // 65025)],
)
def test_sums_that_may_not_fit_are_refused(p: int, q: int, longest: int) -> None:
    check_sums(unsigned(p), unsigned(q), longest)
    with pytest.raises(NasError, match=f"may not fit 32 bits; {longest} do"):
        check_sums(unsigned(p), unsigned(q), longest + 1)
    w = torch.full((1, 64), (1 << p) - 1, dtype=torch.uint8)
    x = torch.full((1, 64), (1 << q) - 1, dtype=torch.uint8)
    found = integer_product(pack_planes(w, p), pack_planes(x, q), unsigned(p), unsigned(q), 64)
    assert found.item() == 64 * ((1 << p) - 1) * ((1 << q) - 1)


@pytest.mark.parametrize("encoding", [twos_complement(3), bipolar(3), unsigned(3, 2)])
def test_every_code_stands_for_one_number(encoding: Encoding) -> None:
    codes = torch.arange(8, dtype=torch.uint8)
    numbers = from_codes(codes, encoding)
    assert torch.equal(to_codes(numbers, encoding), codes)
    assert (int(numbers.min()), int(numbers.max())) == (encoding.lowest, encoding.highest)
    assert len(set(numbers.tolist())) == 8
    with pytest.raises(NasError, match="Expected numbers"):
        to_codes(torch.tensor([encoding.highest + 1]), encoding)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(NasError, match="1 to 8 bits"):
        unsigned(bits)
    with pytest.raises(NasError, match="1 to 8 weight bits"):
        Precision(bits, 2)
    with pytest.raises(NasError, match="1 to 8 activation bits"):
        Precision(2, bits)


@pytest.mark.parametrize("text", ["w1", "a2w1", "w1a2 ", "w-1a2", ""])
def test_a_precision_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(NasError, match="write it as w1a2"):
        Precision.parse(text)


# Layouts.


def test_canonical_planes_hold_the_codes() -> None:
    codes = random_codes(np.random.default_rng(1), (5, 70, 9), 3)
    planes = weight_planes(codes, 3)
    assert planes.shape == (5, 3, 9 * 128 // 8)
    assert torch.equal(weight_codes(planes, 70), codes)


def test_rows_of_an_image_are_a_permutation_of_outputs() -> None:
    order = output_order(64)
    assert sorted(order.tolist()) == list(range(64))
    # A thread t of four holds columns 8a + 2t + e of a product; its outputs are neighbours.
    for block, t in product(range(2), range(4)):
        rows = [32 * block + 8 * a + 2 * t + e for a in range(4) for e in range(2)]
        assert order[rows].tolist() == list(range(32 * block + 8 * t, 32 * block + 8 * t + 8))


def test_an_image_holds_every_bit_where_tensor_cores_read_it() -> None:
    codes = random_codes(np.random.default_rng(2), (37, 300, 1), 2)
    planes = weight_planes(codes, 2)
    image = weight_image(planes)
    assert image.shape == (1, 2, 64, 128)
    order = output_order(64)
    expected = torch.zeros(2, 64, 128, dtype=torch.uint8)
    for plane, row, byte in product(range(2), range(64), range(planes.shape[2])):
        output = int(order[row])
        if output < 37:
            place = ((byte // 16) ^ (row % 8)) * 16 + byte % 16
            expected[plane, row, place] = planes[output, plane, byte]
    assert torch.equal(image[0], expected)


# Quantisers.


def test_integers_round_to_even_and_stay_in_range() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, 9.0, -9.0, 0.49])
    assert integers(x, torch.tensor(1.0), unsigned(2)).tolist() == [0, 2, 2, 0, 3, 0, 0]
    assert integers(x, torch.tensor(1.0), twos_complement(3)).tolist() == [0, 2, 2, 0, 3, -4, 0]
    assert integers(x, torch.tensor(0.5), unsigned(2, zero=1)).tolist() == [1, 2, 2, -1, 2, -1, 1]


def test_nan_becomes_the_lowest_code_and_infinities_the_ends() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf")])
    assert integers(x, torch.tensor(1.0), unsigned(2)).tolist() == [0, 3, 0]
    assert integers(x, torch.tensor(1.0), unsigned(2, zero=1)).tolist() == [-1, 2, -1]


def test_fake_quantisation_is_what_integers_say() -> None:
    x, step = normal(40, 9), torch.full((40, 1), 0.3)
    expected = integers(x, step, twos_complement(3)) * step
    torch.testing.assert_close(fake_quantise(x, step, twos_complement(3)), expected)


def test_gradients_of_learned_steps() -> None:
    x = torch.tensor([0.2, 0.9, 5.0, -3.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    fake_quantise(x, step, unsigned(2)).sum().backward()
    assert x.grad is not None
    assert step.grad is not None
    assert x.grad.tolist() == [1, 1, 0, 0]
    inside = [round(v / 0.5) - v / 0.5 for v in (0.2, 0.9)]
    expected = (sum(inside) + 3 + 0) / (3 * 4) ** 0.5
    assert step.grad.item() == pytest.approx(expected)


def test_gradients_of_a_step_per_row_stay_in_the_row() -> None:
    x = normal(3, 5)
    whole = [torch.tensor(0.4 + i / 10, requires_grad=True) for i in range(3)]
    steps = torch.tensor([[0.4], [0.5], [0.6]], requires_grad=True)
    fake_quantise(x, steps, twos_complement(2)).square().sum().backward()
    for row in range(3):
        fake_quantise(x[row], whole[row], twos_complement(2)).square().sum().backward()
    assert steps.grad is not None
    found = [float(item.grad) for item in whole if item.grad is not None]
    assert steps.grad.flatten().tolist() == pytest.approx(found)


def test_binary_weights_are_signs_times_the_mean_size() -> None:
    w = torch.tensor([[0.5, -1.5, 0.0]], requires_grad=True)
    fake = fake_binary(w)
    assert fake.tolist() == [[pytest.approx(2 / 3), pytest.approx(-2 / 3), pytest.approx(2 / 3)]]
    fake.sum().backward()
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()


def test_steps_are_better_than_the_largest_value_gives() -> None:
    w = torch.cat([normal(4, 500), torch.full((4, 1), 30.0)], 1)  # an outlier in each row
    enc = twos_complement(4)
    step = weight_steps(w, enc)
    plain = w.abs().amax(1) / 7

    def error(s: torch.Tensor) -> torch.Tensor:
        return (integers(w, s[:, None], enc) * s[:, None] - w).square().sum(1)

    assert (error(step) < error(plain)).all()
    assert weight_steps(torch.zeros(2, 3), enc).tolist() == [1, 1]
    assert activation_step(torch.zeros(5), unsigned(2)).item() == 1


def test_inputs_below_zero_are_rounded_as_finely_as_those_above() -> None:
    x = normal(4096).abs()
    found = activation_step(-x, unsigned(8, zero=255))
    assert found == activation_step(x, unsigned(8))


# Exact products on a CPU.


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_every_pair_of_bits_is_exact(p: int, q: int) -> None:
    rng = np.random.default_rng(8 * p + q)
    precision, k = Precision(p, q), 131
    zero = (1 << q) // 3
    w = from_codes(random_codes(rng, (9, k), p), precision.weights)
    x = from_codes(random_codes(rng, (4, k), q), precision.activations(zero))
    layer = APLinear.of(w, torch.ones(9), precision, zero=zero)
    assert torch.equal(layer(x.double()), (x @ w.T).double())
    codes = to_codes(x, precision.activations(zero))
    low = LowBit(*pack_rows(codes, q), (4, k), k, precision.activations(zero), torch.ones(()))
    assert torch.equal(layer(low), (x @ w.T).float())
    assert torch.equal(low.integers(), x)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 2), (2, 2), (3, 5), (8, 8)])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "kernel"),
    [
        ((1, 1), (1, 1), (1, 1), (3, 3)),
        ((2, 2), (0, 1), (2, 1), (3, 2)),
        ((2, 2), (0, 0), (1, 1), (1, 1)),
    ],
)
def test_convolutions_are_exact(
    p: int,
    q: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    kernel: tuple[int, int],
) -> None:
    rng = np.random.default_rng(p + q)
    precision, zero = Precision(p, q), (1 << q) // 2
    w = from_codes(random_codes(rng, (5, 67, *kernel), p), precision.weights)
    x = from_codes(random_codes(rng, (3, 67, 9, 8), q), precision.activations(zero))
    layer = APConv2d.of(
        w,
        torch.ones(5),
        precision,
        zero=zero,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    expected = F.conv2d(x.double(), w.double(), None, stride, padding, dilation)
    assert torch.equal(layer(x.double()), expected)


@pytest.mark.parametrize("zero", [0, 1, 75, 127, 128, 129, 157, 255])
def test_the_path_through_bytes_is_exact_at_every_zero_point(zero: int) -> None:
    rng = np.random.default_rng(zero)
    precision = Precision(8, 8)
    w = from_codes(random_codes(rng, (10, 131, 3, 3), 8), precision.weights)
    x = from_codes(random_codes(rng, (20, 131), 8), precision.activations(zero))
    layer = APLinear.of(w[:, :, 1, 1], torch.ones(10), precision, zero=zero)
    expected = x @ w[:, :, 1, 1].T
    assert torch.equal(int8_path.linear(x.float(), layer.weights()), expected.float())
    images = from_codes(random_codes(rng, (2, 131, 5, 4), 8), precision.activations(zero))
    conv = APConv2d.of(w, torch.ones(10), precision, zero=zero, padding=(1, 1))
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
    found = int8_path.conv2d(images.float(), conv.weights(), geometry)
    assert torch.equal(found, F.conv2d(images.double(), w.double(), padding=1).float())


def test_long_sums_take_a_wider_type() -> None:
    assert exact.working_dtype(twos_complement(8), unsigned(8), 300) == torch.float32
    assert exact.working_dtype(twos_complement(8), unsigned(8), 600) == torch.float64
    k = 4096
    w, x = torch.full((1, k), -128), torch.full((1, k), 255.0)
    x[0, 0] = 254
    layer = APLinear.of(w, torch.ones(1), Precision(8, 8))
    assert layer(x.double()).item() == -128 * (255 * k - 1)


def test_sums_beyond_32_bits_are_split() -> None:
    k = 140_000
    w = torch.stack([torch.full((k,), -128), torch.arange(k) % 256 - 128])
    layer = APLinear.of(w, torch.ones(2), Precision(8, 8))
    x = torch.full((3, k), 255.0, dtype=torch.float64)
    x[1, 7] = 3
    expected = x @ w.double().T
    assert expected.abs().max() > 2**32
    assert torch.equal(layer(x).float(), expected.float())
    assert torch.equal(int8_path.linear(x, layer.weights()), expected.float())
    with pytest.raises(NasError, match="may not fit 32 bits"):
        APLinear(2**31 // 765 + 1, 1, Precision(2, 8))


# Layers.


def test_constants_complete_what_planes_count() -> None:
    rng = np.random.default_rng(5)
    precision, zero = Precision(1, 3), 2
    w = from_codes(random_codes(rng, (6, 50), 1), precision.weights)
    layer = APLinear.of(w, torch.ones(6), precision, zero=zero)
    x = random_codes(rng, (4, 50), 3)
    c = combination(precision.weights, layer.inputs, 50)
    counts = plane_counts(layer.planes, pack_planes(x, 3, multiple=64))
    values = torch.tensor(precision.weights.plane_values)[:, None] * torch.tensor([1, 2, 4])
    y = (counts * values[:, :, None, None]).sum((0, 1)).T
    sums = code_values(x, layer.inputs).sum(1)
    found = c.y * y + c.sum_x * sums[:, None] + layer.constants
    assert torch.equal(found, from_codes(x, layer.inputs) @ w.T)


@pytest.mark.parametrize("bits", ["w1a2", "w2a2", "w4a4", "w8a8"])
def test_a_trained_linear_layer_packs_to_the_same_function(bits: str) -> None:
    layer = QuantLinear(70, 33, Precision.parse(bits))
    x = normal(20, 70).relu()
    layer.calibrate(x)
    packed = layer.pack()
    torch.testing.assert_close(packed(x), layer(x), rtol=1e-4, atol=1e-4)
    assert packed(x).dtype == torch.float32
    assert packed(x.half()).dtype == torch.float16


@pytest.mark.parametrize("bits", ["w1a2", "w2a2", "w3a5"])
def test_a_trained_convolution_packs_to_the_same_function(bits: str) -> None:
    layer = QuantConv2d(6, 9, 3, Precision.parse(bits), stride=2, padding=1, bias=False)
    x = normal(4, 6, 9, 9)
    layer.calibrate(x)
    assert layer.zero > 0  # inputs of both signs
    torch.testing.assert_close(layer.pack()(x), layer(x), rtol=1e-4, atol=1e-4)


def test_training_lowers_the_error() -> None:
    torch.manual_seed(0)
    layer = QuantLinear(16, 4, Precision(2, 4))
    x = normal(256, 16).relu()
    y = x @ normal(16, 4, seed=1)
    layer.calibrate(x)
    optimiser = torch.optim.Adam(layer.parameters(), 0.02)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = F.mse_loss(layer(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    torch.testing.assert_close(layer.pack()(x), layer(x), rtol=1e-4, atol=1e-4)


def test_gradients_pass_through_packed_layers_as_through_trainable_ones() -> None:
    torch.manual_seed(0)
    conv = QuantConv2d(6, 4, (3, 2), Precision(2, 3), stride=(2, 1), padding=(1, 0))
    for layer, x in (
        (QuantLinear(16, 4, Precision(8, 8)), normal(5, 7, 16)),
        (conv, normal(2, 6, 9, 8)),
    ):
        layer.calibrate(0.7 * x)  # some lie outside the range
        found, expected = (x.clone().requires_grad_() for _ in range(2))
        layer.pack()(found).square().sum().backward()
        layer(expected).square().sum().backward()
        assert (expected.grad == 0).any()
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-3)


def test_a_state_dict_brings_the_layer_back() -> None:
    layer = QuantLinear(70, 33, Precision(2, 3)).pack()
    again = APLinear(70, 33, Precision(2, 3))
    again.load_state_dict(layer.state_dict())
    x = normal(5, 70)
    assert torch.equal(again(x), layer(x))
    assert torch.equal(again.image, layer.image)
    assert "image" not in layer.state_dict()
    with pytest.raises(NasError, match="weight bits 2 for 1"):
        APLinear(70, 33, Precision(1, 3)).load_state_dict(layer.state_dict())


def test_the_zero_point_comes_with_packed_weights() -> None:
    precision, w = Precision(2, 3), torch.randint(-2, 2, (8, 20))
    layer = APLinear.of(w, torch.rand(8), precision, step=0.4, zero=3, bias=torch.randn(8))
    other = APLinear(20, 8, precision)
    other.load_state_dict(layer.state_dict())
    x = normal(5, 20)
    assert other.zero == 3
    assert torch.equal(other(x), layer(x))


def test_half_precision_keeps_what_products_read() -> None:
    w = torch.where(normal(8, 20) > 0, 1, -1)
    layer = APLinear.of(w, torch.rand(8) / 1e4, Precision(1, 2), step=0.4, bias=torch.randn(8))
    x = normal(5, 20).half()
    before = layer(x)
    assert torch.equal(layer.half()(x), before)
    floating = [b.dtype for b in layer.buffers() if b.is_floating_point()]
    assert set(floating) == {torch.float32}


def test_inputs_that_do_not_fit_are_refused() -> None:
    layer = APLinear(8, 4, Precision(1, 2))
    with pytest.raises(NasError, match="Expected 8 features, got 9"):
        layer(torch.zeros(2, 9))
    codes = torch.zeros(2, 8, dtype=torch.uint8)
    other = LowBit(*pack_rows(codes, 3), (2, 8), 8, unsigned(3), torch.ones(()))
    with pytest.raises(NasError, match="Expected codes of"):
        layer(other)
    with pytest.raises(NasError, match=r"shape \(b, 8, h, w\)"):
        APConv2d(8, 4, (3, 3), Precision(1, 2))(torch.zeros(2, 8))
    with pytest.raises(NasError, match="not finite"):
        QuantLinear(2, 2, Precision(1, 2)).calibrate(torch.tensor([[1.0, float("nan")]]))


def test_operators_are_what_torch_expects() -> None:
    layer = QuantLinear(20, 6, Precision(1, 2)).pack()
    weights = layer.weights()
    torch.library.opcheck(
        torch.ops.paretonas.low_bit_linear.default,
        (normal(3, 20), weights.tensors, weights.numbers),
    )
    conv = QuantConv2d(3, 6, 3, Precision(2, 2), padding=1).pack()
    weights = conv.weights()
    torch.library.opcheck(
        torch.ops.paretonas.low_bit_conv2d.default,
        (normal(2, 3, 5, 5), weights.tensors, weights.numbers, [3, 3, 1, 1, 1, 1, 1, 1]),
    )


def test_layers_are_exported_whole() -> None:
    model = torch.nn.Sequential(
        QuantConv2d(3, 6, 3, Precision(2, 2), padding=1).pack(),
        torch.nn.Flatten(),
        QuantLinear(6 * 25, 4, Precision(1, 2)).pack(),
    )
    x = normal(2, 3, 5, 5)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    again = normal(7, 3, 5, 5, seed=3)
    assert torch.equal(program.module()(again), model(again))
    names = [str(node.target) for node in program.graph.nodes]
    assert "paretonas.low_bit_conv2d.default" in names
    assert "paretonas.low_bit_linear.default" in names


def test_padding_to_units() -> None:
    assert [padded(k) for k in (1, 64, 65)] == [64, 64, 128]
