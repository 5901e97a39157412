"""Text for people."""

from __future__ import annotations


def one_line(error: object, limit: int = 300) -> str:
    """The first telling line of a foreign error message: not where in its source OpenVINO was, with which it begins."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception from ")] or lines
    return (lines[0] if lines else type(error).__name__)[:limit]


def readable(message: str, limit: int = 1000) -> str:
    """A message on one line: control characters as Python writes them, and the middle of a long one cut out."""
    if len(message) <= limit and message.isprintable():
        return message
    ends = message[:limit], message[-limit:] if len(message) > limit else ""  # no more of it is shown
    begin, end = ("".join(one if one.isprintable() else repr(one)[1:-1] for one in part) for part in ends)
    if end or len(begin) > limit:
        return f"{begin[: limit * 2 // 3]} ... {(end or begin)[-limit // 3 :]}"
    return begin
