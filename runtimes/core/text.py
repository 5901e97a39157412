"""Text for people."""

from __future__ import annotations


def one_line(error: object, limit: int = 300) -> str:
    """The first telling line of a foreign error message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]
