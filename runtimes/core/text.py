"""Text for people."""

from __future__ import annotations


def one_line(error: object, limit: int = 300) -> str:
    """The first telling line of a foreign error message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]


def readable(message: str, limit: int = 1000) -> str:
    """A message on one line: control characters as Python writes them, and the middle of a long one cut out."""
    if len(message) > limit:
        message = f"{message[: limit * 2 // 3]} ... {message[-limit // 3 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
