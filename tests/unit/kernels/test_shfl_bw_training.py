"""Training on Shfl-BW masks: they survive steps, states and processes; schedules end sparse."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kernels.errors import NasError
from kernels.shfl_bw.module import ShflBWConv2d, ShflBWLinear
from kernels.shfl_bw.pattern import as_matrix, is_shfl_bw
from kernels.shfl_bw.prune import vectors_kept
from kernels.shfl_bw.schedules import Gradual, GrowAndPrune
from kernels.shfl_bw.training import SparseTraining, Sparsity, packed_model, prunable

ROOT = Path(__file__).parents[3]
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 5),
    )


LAYERS = {"2": Sparsity(8, 0.25), "6": Sparsity(16, 0.3)}


def steps(
    model: nn.Module, optimiser: torch.optim.Optimizer, count: int, after: Callable[[], object]
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(16, 3, 8, 8, generator=generator)
        loss = F.cross_entropy(model(x), x.mean((2, 3)).argmax(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        after()


def support(model: nn.Module, name: str) -> torch.Tensor:
    return as_matrix(model.get_submodule(name).weight.detach()) != 0  # type: ignore[arg-type]


def assert_sparse(model: nn.Module, sparse: SparseTraining, name: str) -> None:
    """Zero outside the mask to the bit, the mask Shfl-BW with the exact budget."""
    sparsity, mask = sparse.layers[name], sparse.patterns[name].mask
    assert is_shfl_bw(mask, sparsity.v)
    kept = vectors_kept(*mask.shape, sparsity.v, sparsity.density)
    assert int(mask.sum()) == kept * sparsity.v
    assert not bool((support(model, name) & ~mask).any())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_masks_survive_optimisers_with_momentum_and_decay(name: str) -> None:
    model = network()
    optimiser = OPTIMISERS[name](model.parameters())
    sparse = SparseTraining(model, LAYERS)
    sparse.attach(optimiser)
    steps(model, optimiser, 3, lambda: None)  # dense: momentum builds up everywhere
    sparse.prune()
    before = {name: support(model, name) for name in LAYERS}
    weight = model[6].weight.detach().clone()
    steps(model, optimiser, 5, lambda: [assert_sparse(model, sparse, name) for name in LAYERS])
    assert not torch.equal(model[6].weight, weight)
    assert all(torch.equal(before[n], sparse.patterns[n].mask) for n in LAYERS)
    assert bool((model[8].weight != 0).all())


def test_gradients_of_pruned_weights_are_zero() -> None:
    model = network()
    sparse = SparseTraining(model, LAYERS)
    sparse.prune()
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name in LAYERS:
        gradient = as_matrix(model.get_submodule(name).weight.grad)  # type: ignore[arg-type]
        mask = sparse.patterns[name].mask
        assert not bool(gradient[~mask].any())
        assert bool(gradient[mask].any())


def test_a_training_goes_on_from_its_states_to_the_bit() -> None:
    def begun() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        model = network()
        optimiser = OPTIMISERS["AdamW"](model.parameters())
        sparse = SparseTraining(model, LAYERS)
        sparse.attach(optimiser)
        return model, optimiser, sparse

    model, optimiser, sparse = begun()
    sparse.prune()
    steps(model, optimiser, 2, lambda: None)
    file = io.BytesIO()
    torch.save([x.state_dict() for x in (model, optimiser, sparse)], file)
    file.seek(0)
    again = begun()
    for item, state in zip(again, torch.load(file), strict=True):
        item.load_state_dict(state)
    for one, two, _ in ((model, optimiser, sparse), again):
        steps(one, two, 3, lambda: None)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in network().named_parameters()]
    for one, other in zip(model.parameters(), again[0].parameters(), strict=True):
        assert torch.equal(one, other)
    for name in LAYERS:
        assert_sparse(again[0], again[2], name)
        assert torch.equal(again[2].patterns[name].order, sparse.patterns[name].order)


def test_states_that_do_not_fit_say_why() -> None:
    sparse = SparseTraining(network(), LAYERS)
    sparse.prune()
    state = sparse.state_dict()
    mask = state["6.mask"].clone()
    mask[0, 0] = ~mask[0, 0]
    with pytest.raises(NasError, match="'6' is not Shfl-BW: every support"):
        sparse.load_state_dict({**state, "6.mask": mask})
    with pytest.raises(NasError, match="of another shape"):
        sparse.load_state_dict({**state, "6.mask": mask[:16]})
    with pytest.raises(NasError, match="'9', which is not pruned"):
        sparse.load_state_dict({"9.mask": mask, "9.order": state["6.order"]})


def test_a_packed_model_computes_what_was_trained() -> None:
    model = network()
    sparse = SparseTraining(model, LAYERS)
    sparse.prune()
    optimiser = OPTIMISERS["SGD"](model.parameters())
    sparse.attach(optimiser)
    steps(model, optimiser, 3, lambda: None)
    packed = packed_model(model.eval(), sparse.patterns)
    x = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(packed(x), model(x), atol=1e-5)
    assert isinstance(packed[2], ShflBWConv2d)  # type: ignore[index]
    assert isinstance(packed[6], ShflBWLinear)  # type: ignore[index]
    assert isinstance(model[6], nn.Linear)
    assert packed[6].values.numel() == round(0.3 * 64 * 512 / 16) * 16  # type: ignore[index]


def test_the_gradual_schedule_falls_to_its_density_and_groups_rows_anew() -> None:
    model = network()
    optimiser = OPTIMISERS["SGD"](model.parameters())
    sparse = SparseTraining(model, LAYERS)
    sparse.attach(optimiser)
    gradual = Gradual(sparse, begin=2, end=10, every=2)
    seen: list[tuple[int, float, tuple[int, ...]]] = []

    def after() -> None:
        if gradual.step():
            pattern = sparse.patterns["6"]
            assert is_shfl_bw(pattern.mask, 16)
            seen.append((gradual.steps, pattern.density, tuple(pattern.order.tolist())))

    steps(model, optimiser, 14, after)
    assert [step for step, _, _ in seen] == [2, 4, 6, 8, 10]
    densities = [density for _, density, _ in seen]
    expected = [0.3 + 0.7 * (1 - (step - 2) / 8) ** 3 for step in (2, 4, 6, 8, 10)]
    assert densities == pytest.approx(expected, abs=1e-3)
    assert len({order for _, _, order in seen[1:]}) > 1
    for name in LAYERS:
        assert_sparse(model, sparse, name)


def test_parts_grow_in_turns_and_all_are_sparse_at_the_end() -> None:
    model = network()
    optimiser = OPTIMISERS["AdamW"](model.parameters())
    layers = prunable(model, 8, 0.25)
    assert list(layers) == ["0", "2", "6"]
    sparse = SparseTraining(model, layers)
    sparse.attach(optimiser)
    grow = GrowAndPrune(sparse, parts=2, every=3, rounds=2)
    assert grow.parts == [["0", "6"], ["2"]]
    dense: list[set[str]] = []

    def after() -> None:
        dense.append({name for name in layers if float(support(model, name).float().mean()) > 0.9})
        grow.step()

    steps(model, optimiser, 14, after)
    assert dense == [{"0", "6"}] * 3 + [{"2"}] * 3 + [{"0", "6"}] * 3 + [{"2"}] * 3 + [set()] * 2
    assert grow.done
    for name in layers:
        assert_sparse(model, sparse, name)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"9": Sparsity(8, 0.5)}, "no layer '9'"),
        ({"1": Sparsity(8, 0.5)}, "'1' cannot be pruned: only fully connected.*ReLU"),
        ({"tied": Sparsity(8, 0.5), "6": Sparsity(8, 0.5)}, "share one weight"),
        ({"grouped": Sparsity(8, 0.5)}, "has 4 groups"),
    ],
)
def test_layers_that_cannot_be_pruned_say_why(layers: dict[str, Sparsity], message: str) -> None:
    model = network()
    tied = nn.Linear(512, 64)
    tied.weight = model[6].weight  # type: ignore[assignment]
    model.add_module("tied", tied)
    model.add_module("grouped", nn.Conv2d(8, 16, 3, groups=4))
    with pytest.raises(NasError, match=message):
        SparseTraining(model, layers)


def test_sparse_weights_learn_as_well_as_the_structure_allows() -> None:
    """A teacher with planted structure: one-shot pruning finds it, fine-tuning fits it."""
    generator = torch.Generator().manual_seed(2)
    kept = torch.rand(4, 64, generator=generator).argsort(1).argsort(1) < 16
    order = torch.randperm(64, generator=generator)
    mask = torch.zeros(64, 64)
    mask[order] = kept.repeat_interleave(16, 0).float()
    teacher = torch.randn(64, 64, generator=generator) * mask
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    sparse = SparseTraining(model, {"0": Sparsity(16, 0.25)})
    sparse.attach(optimiser)

    def train(count: int) -> float:
        for _ in range(count):
            x = torch.randn(128, 64, generator=generator)
            loss = (model(x) - x @ teacher.T).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    train(60)
    sparse.prune()
    assert torch.equal(sparse.patterns["0"].mask, mask.bool())
    assert train(400) < 1e-3


DISTRIBUTED = """
import os
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from kernels.shfl_bw.schedules import Gradual
from kernels.shfl_bw.training import Sparsity, SparseTraining

rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 32))
model = DistributedDataParallel(net)
optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
sparse = SparseTraining(net, {"0": Sparsity(8, 0.25), "2": Sparsity(8, 0.5)})
sparse.attach(optimiser)
gradual = Gradual(sparse, begin=1, end=5, every=2)
data = torch.Generator().manual_seed(rank)
for _ in range(8):
    loss = model(torch.randn(16, 24, generator=data)).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    gradual.step()
for name, pattern in sparse.patterns.items():
    weight = net.get_submodule(name).weight.detach()
    both = [torch.empty_like(weight) for _ in range(2)]
    distributed.all_gather(both, weight)
    assert torch.equal(both[0], both[1]), name
    assert not weight[~pattern.mask].any(), name
    assert abs(pattern.density - sparse.layers[name].density) < 1e-9
distributed.barrier()
os._exit(0)  # gloo's threads at times abort a process that ends in the usual way
"""


def test_processes_that_train_together_agree(tmp_path: Path) -> None:
    commands = [
        [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path / "store")] for rank in (0, 1)
    ]
    running = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said[-2000:]
