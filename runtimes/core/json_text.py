"""JSON from outside, read as the C++ core reads it: what one of the two refuses, the other refuses too."""

from __future__ import annotations

import json
import math
from typing import Any

from .contract import CONTRACT

DEEPEST: int = CONTRACT["json_depth"]  # levels
SURELY_FINITE = 300  # digits


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8. ValueError, with the reason, for anything else.

    Also refused: a byte order mark, NaN and numbers that no double holds, lone surrogates, a key given twice, more
    than 64 levels.
    """
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ValueError("it begins with a byte order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _is_deep(value):
        raise ValueError("nested too deeply")
    if "\\u" in text:  # what else could give one was refused with the bytes
        _check_surrogates(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > SURELY_FINITE:
        _finite(text)
    return int(text)


DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):  # from each level to what stands in it
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair in a text") from error
