"""How alike points are: blocks of features, and the pairs of numbers a covariance is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Block:
    """Features of points that belong together.

    Scaled so that half the squared distance of two unrelated points is about 1.

    Attributes:
        rows: (n, d).
        lengths: squared lengths of all features, (n,); those of the rows or more.
        decay: (groups,), how fast likeness falls with distance before anything is known; one for
            the block, or one for each feature.
        linear: whether figures may also depend on the features linearly.
    """

    rows: Array
    lengths: Array
    decay: Array
    linear: bool = False

    @classmethod
    def of(cls, rows: Array, decay: float, *, linear: bool = False) -> Block:
        """Make a block with one decay."""
        return cls(rows, (rows**2).sum(axis=1), np.array([decay]), linear)

    @classmethod
    def apart(cls, rows: Array, decay: float, *, linear: bool = False) -> Block:
        """Make a block with a decay for each feature."""
        return cls(rows, (rows**2).sum(axis=1), np.full(rows.shape[1], decay), linear)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a covariance of n points with k others is made of.

    Attributes:
        distances: (groups, n, k), half squared distances.
        products: (linear blocks, n, k), scalar products.
    """

    distances: Array
    products: Array

    @classmethod
    def of(cls, first: Sequence[Block], second: Sequence[Block]) -> Pairs:
        """Compare the points of two sets, described by the same blocks."""
        shape = (len(first[0].rows), len(second[0].rows))
        distances = np.empty((sum(len(one.decay) for one in first), *shape))
        products = np.empty((sum(one.linear for one in first), *shape))
        to, linear = iter(distances), iter(products)
        for one, two in zip(first, second, strict=True):
            product = one.rows @ two.rows.T
            if len(one.decay) == 1:
                half = np.add.outer(one.lengths, two.lengths, out=next(to))
                half *= 0.5
                half -= product
                np.maximum(half, 0.0, out=half)
            else:
                for column, other in zip(one.rows.T, two.rows.T, strict=True):
                    half = np.subtract.outer(column, other, out=next(to))
                    np.square(half, out=half)
                    half *= 0.5
            if one.linear:
                np.divide(product, len(one.decay), out=next(linear))
        return cls(distances, products)

    def take(self, rows: Index, columns: Index) -> Pairs:
        """Return the pairs of some points with some of the others."""
        if (len(rows), len(columns)) == self.distances.shape[1:]:
            return self
        at = np.ix_(rows, columns)
        shape = (len(rows), len(columns))
        return Pairs(
            _stacked([item[at] for item in self.distances], shape),
            _stacked([item[at] for item in self.products], shape),
        )


def own_products(blocks: Sequence[Block]) -> Array:
    """Return the products of each point with itself, (linear blocks, n)."""
    found = [block.lengths / len(block.decay) for block in blocks if block.linear]
    return _stacked(found, (len(blocks[0].rows),))


def decays(blocks: Sequence[Block]) -> Array:
    """Return the decay of each group of distances before anything is known, (groups,)."""
    return np.concatenate([block.decay for block in blocks])


def _stacked(items: Sequence[Array], shape: tuple[int, ...]) -> Array:
    return np.array(items).reshape(len(items), *shape)
