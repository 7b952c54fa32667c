"""Is an export as good as the study says, on the test split, through its own preprocessing?"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from evaluators.accuracy.data import Split, TextSplit
from evaluators.audit.files import wrong_preprocessing
from evaluators.audit.process import Json
from evaluators.audit.truth import ACCURACY_TOLERANCE, INPUT_TOLERANCE, LOSS_TOLERANCE, Truth
from evaluators.audit.values import Check
from search_spaces.export.values import Preprocessing

_SHOWN = 16
"""Normalised test images that are compared pixel by pixel."""
_SHOWN_TOKENS = 20_000
"""Of a test text, that are cut into tokens again."""
_IMAGES = 512
_WINDOWS = 32


def quality_job(truth: Truth) -> Json | None:
    """Return what a clean process is to do with the test split; None where nothing is known of it.

    The files it names are those of :func:`write_test`.
    """
    if truth.test is None or truth.order.preprocessing is None:
        return None
    if isinstance(truth.test, TextSplit):
        context, batch = truth.test.context, _WINDOWS
        return {"task": "likelihood", "context": context, "batch": batch}
    return {"task": "accuracy", "batch": _IMAGES, "shown": _SHOWN}


def write_test(truth: Truth, folder: Path) -> Json:
    """Write the test split as it was before the data set prepared it; return what a job names."""
    folder.mkdir()
    split = folder / "test"
    if isinstance(truth.test, TextSplit):
        save_file({"ids": truth.test.ids.cpu().contiguous()}, split)
        (folder / "text").write_bytes(_text(truth).encode())
        return {"split": str(split), "text": str(folder / "text")}
    assert truth.test is not None
    save_file({"images": _images(truth, truth.test), "labels": truth.test.labels.cpu()}, split)
    return {"split": str(split)}


def check_quality(truth: Truth, job: Json, answer: Json) -> Check:
    """Hold a format's figure on the test split against the study's."""
    text = job["task"] == "likelihood"
    name = f"{'test_loss' if text else 'test_accuracy'} of {job['format']}"
    stated = truth.test_loss if text else truth.test_accuracy
    if "error" in answer:
        return Check(name, False, stated, note=f"does not run: {answer['error']}")
    found = answer["sum"] / answer["total"]
    tolerance = LOSS_TOLERANCE if text else max(ACCURACY_TOLERANCE, 1 / answer["total"])
    same = stated is None or abs(found - stated) <= tolerance + 1e-12
    unit = "nats a token" if text else "share of the test split"
    return Check(
        name,
        same,
        stated,
        found,
        tolerance,
        unit,
        "the study states none" if stated is None else "",
    )


def check_preprocessing(folder: Path, truth: Truth, job: Json, answer: Json) -> Check:
    """Compare inputs as the export prepares them with the data set's."""
    name = "preprocessing"
    if "error" in answer:
        return Check(name, False, note=f"does not run: {answer['error']}")
    note = wrong_preprocessing(folder, truth)
    found = load_file(job["results"])["inputs"]
    if isinstance(truth.test, TextSplit):
        assert truth.tokeniser is not None
        same = found.tolist() == truth.tokeniser.encode(_text(truth)).tolist()
        return Check(name, same and not note, note=note or ("" if same else "other token ids"))
    assert truth.test is not None
    meant = truth.test.to("cpu").batch(slice(0, len(found)))
    worst = (found - meant).abs().max().item() if found.shape == meant.shape else math.inf
    if math.isinf(worst) or math.isnan(worst):
        return Check(name, False, tolerance=INPUT_TOLERANCE, note=note or "other shapes")
    passed = not note and worst <= INPUT_TOLERANCE
    return Check(name, passed, 0.0, worst, INPUT_TOLERANCE, "standard deviations", note)


def _text(truth: Truth) -> str:
    """Return the beginning of the test text."""
    assert isinstance(truth.test, TextSplit)
    assert truth.tokeniser is not None
    return truth.tokeniser.decode(truth.test.ids[:_SHOWN_TOKENS].tolist())


def _images(truth: Truth, test: Split) -> torch.Tensor:
    facts = truth.order.preprocessing
    assert isinstance(facts, Preprocessing)
    images = test.images.cpu()
    if test.levels is None:
        mean, std = (
            torch.tensor(item, dtype=torch.float64).reshape(-1, 1, 1)
            for item in (facts.mean, facts.std)
        )
        images = (images.double() * std + mean).float()
    return images.contiguous()
