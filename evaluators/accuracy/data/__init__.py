"""Data sets: images with their classes, and texts as token ids; fixed splits, fingerprinted.

``load_dataset`` finds one by name, ``make_dataset`` and ``make_split_dataset`` make one of arrays.
"""

from evaluators.accuracy.data.load import DATASETS, load_dataset
from evaluators.accuracy.data.node import AnyDataset
from evaluators.accuracy.data.prepare import make_dataset, make_split_dataset
from evaluators.accuracy.data.text import TextDataset, TextSplit
from evaluators.accuracy.data.values import SPLIT_SEED, Dataset, Split

__all__ = [
    "DATASETS",
    "SPLIT_SEED",
    "AnyDataset",
    "Dataset",
    "Split",
    "TextDataset",
    "TextSplit",
    "load_dataset",
    "make_dataset",
    "make_split_dataset",
]
