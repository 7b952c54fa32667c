"""Image classification data sets: fixed splits, normalised by the training split, fingerprinted.

``load_dataset`` finds one by name, ``make_dataset`` and ``make_split_dataset`` make one of arrays.
"""

from evaluators.accuracy.data.load import DATASETS, load_dataset
from evaluators.accuracy.data.prepare import make_dataset, make_split_dataset
from evaluators.accuracy.data.values import SPLIT_SEED, Dataset, Split

__all__ = [
    "DATASETS",
    "SPLIT_SEED",
    "Dataset",
    "Split",
    "load_dataset",
    "make_dataset",
    "make_split_dataset",
]
