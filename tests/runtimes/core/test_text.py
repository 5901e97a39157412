"""What is told of foreign errors, and messages on one line."""

from __future__ import annotations

import pytest

from edgerecall.runtimes.core.text import one_line, readable


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n  no such layer \nmore", "no such layer"),
        (
            "Exception from src/core.cpp:117:\nException from src/plugin.cpp:53:\nobject is not initialized\n",
            "object is",
        ),
        ("Exception from src/core.cpp:117:", "Exception from src/core.cpp:117:"),
        ("", "str"),
        ("x" * 500, "x" * 300),
    ],
)
def test_the_first_telling_line(text: str, told: str) -> None:
    assert one_line(text).startswith(told) and "\n" not in one_line(text) and len(one_line(text)) <= 300


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("plain é", "plain é"),
        ("two\nlines\x1b[31m", "two\\nlines\\x1b[31m"),
        ("\x85", "\\x85"),
        ("a" * 1000, "a" * 1000),
        ("a" * 999 + "\n", f"{'a' * 666} ... {'a' * 332}\\n"),
        ("a" * 1500 + "b" * 1500, f"{'a' * 666} ... {'b' * 334}"),
    ],
)
def test_messages_are_one_line(message: str, told: str) -> None:
    assert readable(message) == told
