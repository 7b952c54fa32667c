"""How an operator's attributes are declared, checked, and written as text and JSON.

An attribute is a dataclass field made by :func:`attr`. Its codec checks a value once, when the
operator is made, and gives its two written forms. The text form of an operator is its kind followed
by one token per attribute that differs from its default: ``conv 16 k3 s2 bn relu``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from search_spaces.errors import OpError

Json = int | float | str | bool | list[int] | None
"""An attribute value as JSON holds it."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Checks and writes one type of attribute.

    Attributes:
        check: turns what the caller gave into the canonical value, or raises ``ValueError`` with
            what was expected.
        encode: canonical value to text, without the attribute's mark.
        decode: text to a value that ``check`` accepts.
        to_json: canonical value to JSON.
        words: the whole tokens this attribute owns, for attributes written without a mark.
    """

    check: Callable[[Any], Any]
    encode: Callable[[Any], str] = str
    decode: Callable[[str], Any] = int
    to_json: Callable[[Any], Json] = lambda value: cast("Json", value)
    words: tuple[str, ...] = ()


def _integer(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"an integer of at least {least}")
        return value

    return check


def _integers(least: int, count: int | None) -> Callable[[Any], tuple[int, ...]]:
    one = _integer(least)

    def check(value: Any) -> tuple[int, ...]:
        if isinstance(value, int) and count is not None:
            return (one(value),) * count
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            values = tuple(one(item) for item in value)
            if count is None or len(values) == count:
                return values
        raise ValueError(
            f"{count or 'one or more'} integers of at least {least}"
            + (", or one for both axes" if count == 2 else "")
        )

    return check


def _encode_integers(values: tuple[int, ...]) -> str:
    same = len(values) == 2 and values[0] == values[1]
    return str(values[0]) if same else "x".join(map(str, values))


def _decode_integers(text: str) -> int | tuple[int, ...]:
    values = tuple(int(item) for item in text.split("x"))
    return values[0] if len(values) == 1 else values


def integer(least: int = 1) -> Codec:
    """Give the codec of an integer with a lower bound."""
    return Codec(_integer(least))


def pair(least: int = 1) -> Codec:
    """Give the codec of (height, width); one integer stands for both, ``k3`` for ``(3, 3)``."""
    return Codec(_integers(least, 2), _encode_integers, _decode_integers, list)


def shape() -> Codec:
    """Give the codec of a tensor shape without its batch axis: ``3x32x32``."""

    def decode(text: str) -> tuple[int, ...]:
        return tuple(int(item) for item in text.split("x"))

    return Codec(_integers(1, None), lambda values: "x".join(map(str, values)), decode, list)


def number(least: float = 0.0, below: float = float("inf")) -> Codec:
    """Give the codec of a float in ``[least, below)``."""

    def check(value: Any) -> float:
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        if not valid or not least <= value < below:
            raise ValueError(f"a number in [{least}, {below})")
        return float(value)

    return Codec(check, repr, float)


def ratio() -> Codec:
    """Give the codec of an exact fraction in [0, 1), taken from a decimal: ``0.33`` is 33/100."""

    def check(value: Any) -> Fraction:
        try:
            exact = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            exact = Fraction(-1)
        if not 0 <= exact < 1:
            raise ValueError("a decimal or fraction in [0, 1)")
        return exact

    def encode(value: Fraction) -> str:
        decimal = repr(float(value))
        return decimal if Fraction(decimal) == value else str(value)

    return Codec(check, encode, str, encode)


def flag(word: str) -> Codec:
    """Give the codec of a switch that is written as one word when it is on."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    return Codec(check, lambda _: word, lambda _: True, words=(word,))


def choice(*names: str, optional: bool = False) -> Codec:
    """Give the codec of one name out of a fixed set, or None where ``optional``."""

    def check(value: Any) -> str | None:
        if value in names or (optional and value is None):
            return cast("str | None", value)
        raise ValueError(f"one of {', '.join(names)}{' or none' if optional else ''}")

    return Codec(check, str, str, words=names)


def attr(codec: Codec, mark: str = "", *, default: Any = dataclasses.MISSING) -> Any:
    """Declare an attribute of an operator.

    Args:
        codec: its type.
        mark: the letters before its value in the text form; empty for a value that stands alone.
        default: the value that the text form leaves out.
    """
    return dataclasses.field(default=default, metadata={"codec": codec, "mark": mark})


def checked(field: dataclasses.Field[Any], value: object) -> object:
    """Return the canonical value of an attribute.

    Raises:
        OpError: the value is not of the attribute's type.
    """
    try:
        return field.metadata["codec"].check(value)
    except ValueError as problem:
        raise OpError(f"{field.name} must be {problem}, got {value!r}") from None


def parse_token(fields: Sequence[dataclasses.Field[Any]], token: str) -> tuple[str, object]:
    """Read one token of an operator's text form.

    Returns:
        The attribute's name and its value.

    Raises:
        OpError: no attribute is written like that.
    """
    for field in fields:
        if token in field.metadata["codec"].words:
            return field.name, field.metadata["codec"].decode(token)
    marked = [f for f in fields if not f.metadata["codec"].words]
    for field in sorted(marked, key=lambda f: -len(f.metadata["mark"])):
        mark = field.metadata["mark"]
        if token.startswith(mark):
            try:
                return field.name, field.metadata["codec"].decode(token[len(mark) :])
            except ValueError:
                continue
    raise OpError(f"cannot read the attribute {token!r}")
