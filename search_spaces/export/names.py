"""Names of files and lines of text out of names that people, or attackers, chose."""

from __future__ import annotations

import re
from hashlib import blake2b

_LONGEST = 60
_TITLE = 120
_RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(10))}


def safe_name(text: str) -> str:
    """Return a name for a file or folder on any system, the text itself where it is one.

    It has letters, digits, ``.``, ``_`` and ``-``, at most 60 characters, and begins with a letter
    or digit. A text that had to be changed gets a hash behind it, so that two stay two.

    Example:
        >>> safe_name("digits-2"), safe_name("../../etc/passwd")
        ('digits-2', 'etc-passwd-830a08e2')
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    if name.split(".")[0].lower() in _RESERVED:
        name = f"file-{name}"
    if name and name == text and len(name) <= _LONGEST:
        return name
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    short = re.sub(r"\.{2,}", ".", name)[: _LONGEST - 9].strip("-._")
    return f"{short or 'unnamed'}-{digest}"


def one_line(text: object, longest: int = _TITLE) -> str:
    """Return a text as one line of Markdown that no character of it can change into more."""
    words = " ".join("".join(item if item.isprintable() else " " for item in str(text)).split())
    if len(words) > longest:
        words = words[: longest - 3] + "..."
    return re.sub(r"([\\`*\[\]<>|#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", words)
