"""How a data set is written: ``NAME?option=number&option=number``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from kernels.errors import NasError, UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may follow the ``?``; None leaves things as they are.

    Args:
        train: images to keep of the training split, in the classes' proportions.
        validation: images to keep of the validation split.
        test: images to keep of the test split.
        size: side in pixels that the images of a folder are brought to.
    """

    train: int | None = None
    validation: int | None = None
    test: int | None = None
    size: int | None = None

    @property
    def subset(self) -> tuple[int | None, int | None, int | None]:
        """The images to keep of each split: training, validation, test."""
        return (self.train, self.validation, self.test)


def parse_reference(reference: str) -> tuple[str, Options]:
    """Split a data set's reference into what it names and its options.

    Example:
        >>> parse_reference("cifar10?train=5000")[1].train
        5000

    Raises:
        NasError: an option is unknown, given twice, or no positive whole number.
    """
    place, mark, text = reference.partition("?")
    if not mark:
        return place, Options()
    known = [entry.name for entry in fields(Options)]
    values: dict[str, int] = {}
    for name, value in words_of(text):
        if name not in known:
            raise UnknownNameError("data option", name, known)
        if name in values or not (value.isascii() and value.isdigit() and int(value) > 0):
            raise NasError(
                f"Data set {reference!r}: give {name} once, as a positive whole number: "
                f"{place}?{name}=1000."
            )
        values[name] = int(value)
    return place, Options(**values)


def words_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of ``option=value&option=value``."""
    for item in text.split("&"):
        name, _, value = item.partition("=")
        yield name, value
