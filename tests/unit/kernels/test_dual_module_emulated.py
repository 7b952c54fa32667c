"""The CUDA kernels of dual-module inference: compiled, and run thread by thread on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kernels.dual_module.calibrate import compute_everything, fit, set_ratio
from kernels.dual_module.launch import SOURCES, FFNStep, Launch, LSTMStep, compiled
from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.packing import pack_codes
from kernels.dual_module.plans import FFN_PLAN, LSTM_PLAN, Plan
from kernels.dual_module.recurrent import DualModuleLSTMCell
from kernels.errors import NasError
from tests.emulator import Emulated, missing

needs_compiler = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="session", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


def emulate(launch: Launch, folder: Path, seed: int = 0) -> None:
    together = launch.defines["CLUSTER"]
    source = SOURCES / launch.file
    kernel = Emulated(source, launch.function, launch.defines, folder, together=together, seed=seed)
    kernel((launch.blocks,), (32 * launch.defines["WARPS"],), launch.arguments)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halved(module: nn.Module) -> None:
    """Round weights to what the kernels read."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.half().float())


@needs_compiler
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "plan",
    [
        Plan(8, 2, 1, pieces=2),
        Plan(8, 4, 3, groups=2),
        Plan(4, 1, 2, deep=4, overlap=False),
    ],
    ids=str,
)
def test_an_lstm_step(bits: int, ratio: float, plan: Plan, folder: Path) -> None:
    torch.manual_seed(0)
    cell = DualModuleLSTMCell.of(nn.LSTMCell(690, 70), bits=bits, projected=36)
    halved(cell)
    xs, hs, cs = (
        normal(200, 690).half(),
        normal(200, 70, seed=1).half() / 2,
        normal(200, 70, seed=2),
    )
    run = lambda: cell(xs.float(), (hs.float(), cs))  # noqa: E731
    fit(cell, run)
    set_ratio(cell, ratio, run)
    step = LSTMStep(cell, blocks=3, plan=plan)
    assert step.blocks == 3 + -3 % plan.cluster
    new_h = torch.full((70,), torch.nan, dtype=torch.float16)
    new_c = torch.full((70,), torch.nan)
    for row in (0, 7):
        emulate(step.launch(xs[row], hs[row], cs[row].contiguous(), new_h, new_c), folder)
        for switch in cell.switches():
            switch.reset()
        h, c = cell(xs[row : row + 1].float(), (hs[row : row + 1].float(), cs[row : row + 1]))
        torch.testing.assert_close(new_c, c[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(new_h.float(), h[0], rtol=2e-3, atol=1e-3)
        kept = sum(switch.kept for switch in cell.switches())
        assert int(step.computed.sum()) == 280 - kept


@needs_compiler
def test_a_dense_lstm_step(folder: Path) -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(40, 33)
    halved(cell)
    x, h, c = normal(40).half(), normal(33, seed=1).half(), normal(33, seed=2)
    new_h, new_c = torch.empty(33, dtype=torch.float16), torch.empty(33)
    step = LSTMStep(DualModuleLSTMCell.of(cell, projected=4), blocks=2, dense=True)
    emulate(step.launch(x, h, c, new_h, new_c), folder)
    expected = cell(x.float()[None], (h.float()[None], c[None]))
    torch.testing.assert_close(new_c, expected[1][0], rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("ratio", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    "plan",
    [Plan(4, 4, 2, groups=2), Plan(8, 2, 1), Plan(4, 1, 1, overlap=False)],
    ids=str,
)
def test_a_feed_forward_step(ratio: float, plan: Plan, folder: Path) -> None:
    torch.manual_seed(0)
    block = DualModuleFFN(nn.Linear(100, 150), nn.Linear(150, 72), projected=40)
    halved(block)
    xs = normal(300, 100).half()
    fit(block, lambda: block(xs.float()))
    set_ratio(block, ratio, lambda: block(xs.float()))
    step = FFNStep(block, 4, plan=plan)
    y = torch.full((72,), torch.nan, dtype=torch.float16)
    for row in (0, 3):
        emulate(step.launch(xs[row], y), folder)
        block.first.switch.reset()
        expected = block(xs[row : row + 1].float())[0]
        torch.testing.assert_close(y.float(), expected, rtol=2e-3, atol=2e-3)
        assert int(step.computed.sum()) == 150 - block.first.switch.kept


@needs_compiler
def test_a_lossless_feed_forward_step(folder: Path) -> None:
    torch.manual_seed(0)
    block = DualModuleFFN(nn.Linear(100, 150), nn.Linear(150, 72), projected=40)
    halved(block)
    x, y = normal(100).half(), torch.full((72,), torch.nan, dtype=torch.float16)
    step = FFNStep(block, 4, plan=Plan(4, 2, 1), lossless=True)
    emulate(step.launch(x, y), folder)
    hidden = torch.relu(block.first.big(x.float()))
    torch.testing.assert_close(y.float(), block.second(hidden), rtol=2e-3, atol=2e-3)
    assert int(step.computed.sum()) == int((hidden != 0).sum())


@needs_compiler
def test_nan_reaches_the_output(folder: Path) -> None:
    torch.manual_seed(0)
    block = DualModuleFFN(nn.Linear(64, 64), nn.Linear(64, 8), projected=20)
    xs = normal(100, 64).half()
    fit(block, lambda: block(xs.float()))
    set_ratio(block, 0.5, lambda: block(xs.float()))
    step, y = FFNStep(block, 2, plan=Plan(4, 2, 1)), torch.zeros(8, dtype=torch.float16)
    broken = xs[0].clone()
    broken[5] = torch.nan
    emulate(step.launch(broken, y), folder)
    assert y.isnan().all()
    assert int(step.computed.sum()) == 64


def test_four_bit_weights_lie_as_the_kernel_reads_them() -> None:
    codes = torch.arange(-7, 1).repeat(4).to(torch.int8)[None]
    packed = pack_codes(codes, (32,), 4)
    assert packed.shape == (1, 16)
    for i in range(4):
        assert (int(packed[0, i]) & 15, int(packed[0, i]) >> 4) == ((i - 7) & 15, (i - 3) & 15)
    assert pack_codes(codes[:, :10], (10,), 8).shape == (1, 32)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NasError, match="outputs in eights, not 7"):
        FFNStep(DualModuleFFN(nn.Linear(8, 8), nn.Linear(8, 7)), blocks=1)
    with pytest.raises(NasError, match="KiB of shared memory"):
        LSTMStep(
            DualModuleLSTMCell.of(nn.LSTMCell(256, 700), projected=120), 1, plan=Plan(24, 1, 1)
        )


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("bits", [4, 8])
def test_kernels_compile_nearly_without_spills(arch: str, bits: int) -> None:
    of_lstm, of_ffn = (plan.alone() if arch == "sm_80" else plan for plan in (LSTM_PLAN, FFN_PLAN))
    cell = DualModuleLSTMCell.of(nn.LSTMCell(650, 650), bits=bits)
    launch = LSTMStep(cell, 24, plan=of_lstm)
    step = compiled("lstm.cu", launch.defines, arch).functions["dual_lstm_step"]
    feed = DualModuleFFN(nn.Linear(512, 1024), nn.Linear(1024, 512), bits=bits)
    block = compiled("ffn.cu", FFNStep(feed, 8, plan=of_ffn).defines, arch).functions["dual_ffn"]
    for resources, plan in ((step, of_lstm), (block, of_ffn)):
        assert resources.spill_bytes <= 48  # numbers that outlive the loop over rows
        assert resources.registers * 32 * plan.warps <= 65536


def test_switching_nothing_is_the_dense_step() -> None:
    cell = nn.LSTMCell(12, 20)
    dual = DualModuleLSTMCell.of(cell, projected=4)
    compute_everything(dual)
    x = normal(3, 12)
    torch.testing.assert_close(dual(x)[0], cell(x)[0])
