"""The dual-module kernels on a GPU, against the layers they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kernels.dual_module.calibrate import fit, set_ratio
from kernels.dual_module.launch import FFNStep, LSTMStep
from kernels.dual_module.linear import DualModuleFFN
from kernels.dual_module.plans import LSTM_PLANS, Plan
from kernels.dual_module.recurrent import DualModuleLSTMCell

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("hidden", [70, 650, 1500])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_lstm_steps(hidden: int, bits: int, ratio: float) -> None:
    torch.manual_seed(0)
    cell = DualModuleLSTMCell.of(nn.LSTMCell(hidden, hidden).cuda().half().float(), bits=bits)
    xs, hs = (torch.randn(512, hidden, device="cuda").half() for _ in range(2))
    cs = torch.randn(512, hidden, device="cuda")
    fit(cell, lambda: cell(xs.float(), (hs.float(), cs)))
    set_ratio(cell, ratio, lambda: cell(xs.float(), (hs.float(), cs)))
    step = LSTMStep(cell)
    for row in range(5):
        new_h = torch.full((hidden,), torch.nan, dtype=torch.float16, device="cuda")
        new_c = torch.full((hidden,), torch.nan, device="cuda")
        for _ in range(3):  # the barrier's counter goes on from launch to launch
            step.launch(xs[row], hs[row], cs[row], new_h, new_c).run()
        one = slice(row, row + 1)
        _, c = cell(xs[one].float(), (hs[one].float(), cs[one]))
        # A row whose estimate lies at the threshold may be decided otherwise.
        close = (new_c - c[0]).abs() < 1e-3
        assert close.float().mean() > 0.995
        assert torch.isfinite(new_h).all()


@pytest.mark.parametrize("plan", LSTM_PLANS.values(), ids=LSTM_PLANS)
def test_a_sequence_whose_steps_overlap(plan: Plan) -> None:
    torch.manual_seed(0)
    hidden, length = 1500, 40
    cell = DualModuleLSTMCell.of(nn.LSTMCell(hidden, hidden).cuda().half().float())
    xs, hs = (torch.randn(512, hidden, device="cuda").half() for _ in range(2))
    cs = torch.randn(512, hidden, device="cuda")
    fit(cell, lambda: cell(xs.float(), (hs.float(), cs)))
    set_ratio(cell, 0.5, lambda: cell(xs.float(), (hs.float(), cs)))

    def run(step: LSTMStep) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.full((length + 1, hidden), torch.nan, dtype=torch.float16, device="cuda")
        c = torch.full((length + 1, hidden), torch.nan, device="cuda")
        h[0], c[0] = hs[0], cs[0]
        for i in range(length):
            step.launch(xs[i], h[i], c[i], h[i + 1], c[i + 1]).run()
        return h, c

    alone = run(LSTMStep(cell, plan=replace(plan, overlap=False)))
    for found, expected in zip(run(LSTMStep(cell, plan=plan)), alone, strict=True):
        assert torch.isfinite(found).all()
        assert torch.equal(found, expected)


@pytest.mark.parametrize("ratio", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("sizes", [(100, 150, 72), (4096, 16384, 4096)], ids=str)
def test_feed_forward_steps(sizes: tuple[int, int, int], ratio: float) -> None:
    torch.manual_seed(0)
    width, hidden, outputs = sizes
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, outputs)
    block = DualModuleFFN(first, second).cuda().half().float()
    xs = torch.randn(1024, width, device="cuda").half()
    fit(block, lambda: block.first(xs.float()))
    set_ratio(block, ratio, lambda: block.first(xs.float()))
    step = FFNStep(block)
    for row in range(3):
        y = torch.full((outputs,), torch.nan, dtype=torch.float16, device="cuda")
        step.launch(xs[row], y).run()
        expected = block(xs[row : row + 1].float())[0]
        assert float((y.float() - expected).norm() / expected.norm()) < 5e-3
        again = torch.empty_like(y)
        step.launch(xs[row], again).run()
        assert torch.equal(again, y)
