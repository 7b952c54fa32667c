"""LSTM and GRU whose gates' rows are computed where an estimate says they matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.dual_module.base import DualModule
from kernels.dual_module.fit import LeastSquares
from kernels.dual_module.little import Estimator, LittleModule
from kernels.dual_module.regions import Activation
from kernels.dual_module.switch import Switch

LSTM_GATES: tuple[Activation, ...] = ("sigmoid", "sigmoid", "tanh", "sigmoid")
"""Input, forget, cell and output gate, in PyTorch's order."""

State = tuple[torch.Tensor, torch.Tensor]


class DualModuleLSTMCell(DualModule):
    """One LSTM step. Big rows are [W_ih | W_hh], so that a row is read in one piece.

    Args:
        weight_ih: (4 h, d).
        weight_hh: (4 h, h).
        bias: (4 h,): both of PyTorch's added up.
        settings: of the little module.
    """

    def __init__(
        self,
        weight_ih: torch.Tensor,
        weight_hh: torch.Tensor,
        bias: torch.Tensor,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = weight_ih.shape[1], weight_hh.shape[1]
        self.weight = nn.Parameter(torch.cat([weight_ih, weight_hh], 1).detach())
        self.bias = nn.Parameter(bias.detach().clone())
        sizes = (self.input_size, self.hidden_size)
        self.little = LittleModule(sizes, 4 * self.hidden_size, **settings)
        self.gate_switches = nn.ModuleList([Switch(gate) for gate in LSTM_GATES])
        self.to(weight_ih.device)

    @classmethod
    def of(cls, cell: nn.LSTMCell, **settings: Any) -> DualModuleLSTMCell:
        """Take the weights of an ordinary cell."""
        bias = (
            cell.bias_ih + cell.bias_hh
            if cell.bias
            else cell.weight_ih.new_zeros(4 * cell.hidden_size)
        )
        return cls(cell.weight_ih, cell.weight_hh, bias, **settings)

    def forward(self, x: torch.Tensor, state: State | None = None) -> State:
        """Map x (b, d) and the state h, c (b, h) to the next h, c."""
        h, c = self._state(x, state)
        estimate = self.little(x, h)
        gates = []
        big = self.big(x, h).chunk(4, -1)
        for switch, own, computed in zip(
            self.gate_switches, estimate.chunk(4, -1), big, strict=True
        ):
            mixed = torch.where(switch(own), computed, own.to(x.dtype))
            gates.append(switch.apply_activation(mixed))  # type: ignore[operator]
        i, f, g, o = gates
        c = f * c + i * g
        return o * torch.tanh(c), c

    def big(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Return all gates' rows before their activations (b, 4 h), computed."""
        return F.linear(torch.cat([x, h], -1), self.weight, self.bias)

    def estimators(self) -> list[Estimator]:
        """See :class:`DualModule`."""
        return [self.little.estimator]

    @torch.no_grad()
    def observe(self, equations: Sequence[LeastSquares], *given: Any) -> None:
        """Add inputs x (b, d) and states (b, h); see :class:`DualModule`."""
        x = given[0]
        h, _ = self._state(x, given[1] if len(given) > 1 else None)
        equations[0].add(torch.cat(self.little.project(x, h), -1), self.big(x, h))

    def _state(self, x: torch.Tensor, state: State | None) -> State:
        if state is not None:
            return state
        zeros = x.new_zeros(len(x), self.hidden_size)
        return zeros, zeros


class DualModuleLSTM(nn.Module):
    """Layers of LSTM cells over sequences (b, t, d).

    Args:
        cells: one a layer.
    """

    def __init__(self, cells: Sequence[DualModuleLSTMCell]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    @classmethod
    def of(cls, lstm: nn.LSTM, **settings: Any) -> DualModuleLSTM:
        """Take the weights of an ordinary LSTM of one direction without projections."""
        cells = []
        for layer in range(lstm.num_layers):
            ih, hh = getattr(lstm, f"weight_ih_l{layer}"), getattr(lstm, f"weight_hh_l{layer}")
            bias = ih.new_zeros(len(ih))
            if lstm.bias:
                bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
            cells.append(DualModuleLSTMCell(ih, hh, bias, **settings))
        return cls(cells)

    def forward(
        self, x: torch.Tensor, states: Sequence[State] | None = None
    ) -> tuple[torch.Tensor, list[State]]:
        """Map x (b, t, d) and each layer's state to the last layer's h (b, t, h) and the states."""
        current: list[State | None] = [None] * len(self.cells)
        if states is not None:
            current = list(states)
        outputs = []
        for step in x.unbind(1):
            value = step
            for layer, cell in enumerate(self.cells):
                state: State = cell(value, current[layer])
                current[layer], value = state, state[0]
            outputs.append(value)
        return torch.stack(outputs, 1), [state for state in current if state is not None]


class DualModuleGRUCell(DualModule):
    """One GRU step, in PyTorch's form: the candidate reads the state after the reset gate.

    The candidate's two parts are estimated apart, so that its switch sees them joined by the
    computed reset gate.

    Args:
        cell: whose weights are taken.
        settings: of the little modules.
    """

    def __init__(self, cell: nn.GRUCell, **settings: Any) -> None:
        super().__init__()
        self.hidden_size = size = cell.hidden_size
        self.cell = cell
        gates = (cell.input_size, size)
        self.gates = LittleModule(gates, 2 * size, **settings)
        self.candidate_x = LittleModule(gates[:1], size, **settings)
        self.candidate_h = LittleModule(gates[1:], size, **settings)
        self.gate_switches = nn.ModuleList([Switch("sigmoid"), Switch("sigmoid"), Switch("tanh")])
        self.to(cell.weight_ih.device)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """Map x (b, d) and the state (b, h) to the next state."""
        h = x.new_zeros(len(x), self.hidden_size) if h is None else h
        from_x, from_h = self._parts(x, h)
        reset, update = (
            self._mixed(i, estimate, from_x[i] + from_h[i])
            for i, estimate in enumerate(self.gates(x, h).chunk(2, -1))
        )
        estimate = self.candidate_x(x) + reset * self.candidate_h(h)
        candidate = self._mixed(2, estimate, from_x[2] + reset * from_h[2])
        return (1 - update) * candidate + update * h

    def estimators(self) -> list[Estimator]:
        """See :class:`DualModule`: of the gates, and of both parts of the candidate."""
        littles = (self.gates, self.candidate_x, self.candidate_h)
        return [little.estimator for little in littles]

    @torch.no_grad()
    def observe(self, equations: Sequence[LeastSquares], *given: Any) -> None:
        """Add inputs x (b, d) and states (b, h); see :class:`DualModule`."""
        x = given[0]
        h = given[1] if len(given) > 1 else None
        h = x.new_zeros(len(x), self.hidden_size) if h is None else h
        from_x, from_h = self._parts(x, h)
        both = torch.cat(self.gates.project(x, h), -1)
        equations[0].add(both, torch.cat([from_x[0] + from_h[0], from_x[1] + from_h[1]], -1))
        equations[1].add(self.candidate_x.project(x)[0], from_x[2])
        equations[2].add(self.candidate_h.project(h)[0], from_h[2])

    def _parts(
        self, x: torch.Tensor, h: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        cell = self.cell
        from_x = F.linear(x, cell.weight_ih, cell.bias_ih if cell.bias else None)
        from_h = F.linear(h, cell.weight_hh, cell.bias_hh if cell.bias else None)
        return from_x.chunk(3, -1), from_h.chunk(3, -1)

    def _mixed(self, gate: int, estimate: torch.Tensor, computed: torch.Tensor) -> torch.Tensor:
        switch = self.gate_switches[gate]
        mixed = torch.where(switch(estimate), computed, estimate.to(computed.dtype))
        activated: torch.Tensor = switch.apply_activation(mixed)  # type: ignore[operator]
        return activated
