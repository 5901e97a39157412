"""What is told of foreign errors."""

from __future__ import annotations

import pytest

from edgerecall.runtimes.core.text import one_line


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
