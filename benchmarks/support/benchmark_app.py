"""Reads what OpenVINO's `benchmark_app` prints."""

from __future__ import annotations

import re

UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def median_ms(text: str) -> float:
    """The median latency in ms. It is printed in microseconds where the average is below 1 ms."""
    found = re.findall(r"Median:\s+(\d+(?:\.\d+)?) (us|ms|s)\b", text)
    if len(found) != 1:
        raise SystemExit(f"benchmark_app: expected one line 'Median: <number> us|ms|s', got {len(found)} in:\n{text}")
    ((number, unit),) = found
    return float(number) * UNITS_MS[unit]
