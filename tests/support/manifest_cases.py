"""Manifests from outside: what a seed makes of a sound one, by its values and by its bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

DEEP: Any = []
for _ in range(70):
    DEEP = [DEEP]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, -1, 64, 64.0, 8193, 65537, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-300,
    1e30, 1e31, 1e308, float("nan"), float("inf"), "", "1", "fp32", "int8", "fp64", "any", "paddle", "resize", "decode",
    "normalize", "lanczos", "hamming", "pil", "cv2", "round", "a b", "a\n", "a\0b", "\u00e9", "\ud800", "x" * 101,
    "x" * 1001, "../up", "a//b", "/a", "golden/tensors.npy", "golden/golden.npz", "0" * 64, "0" * 63, "A" * 64, [], {},
    [1], [3, 32, 32], [0.5, 0.5, 0.5], [0, 0, 0], [1, 1], ["any"], {"op": "decode"}, {"op": "flip"}, {"op": 1}, DEEP,
)  # fmt: skip
TEXTS: tuple[bytes, ...] = (
    b"\xef\xbb\xbf", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b" ", b"\n", b"\t", b"\x0c", b"\xc2\xa0", b"{", b"}",
    b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud83d", b"\\ud83d\\ude00", b"\\x", b"NaN", b"-Infinity",
    b"1e999", b"-0", b"01", b"1.", b"+1", b"1e-999", b"//", b"/* */", b"null", b"true", b"'", b"9" * 400, b'"a": 1,',
    b'"format_version": 1,', b'"command": "x",', b"[" * 80,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within this one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def changed_value(data: Any, draw: random.Random) -> Any:
    """One value replaced, removed, copied to another place, doubled, or joined by an unknown key."""
    data = copy.deepcopy(data)
    path = draw.choice(places(data)[1:])
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    key, kind = path[-1], draw.random()
    if kind < 0.15:
        del holder[key]
    elif kind < 0.3:
        other: Any = data
        for step in draw.choice(places(data)):
            other = other[step]
        holder[key] = copy.deepcopy(other)
    elif kind < 0.4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind < 0.45 and isinstance(holder, dict):
        holder[draw.choice(("x", "op", "precision", "quantisation", "recipe", "check", "skipped", "name"))] = (
            draw.choice(VALUES)
        )
    else:
        holder[key] = copy.deepcopy(draw.choice(VALUES))
    return data


def every_value(data: Any) -> Iterator[bytes]:
    """Each of `VALUES` in each place alone; of a list's entries the first stands for all."""
    for path in places(data)[1:]:
        if not all(key == 0 for key in path if isinstance(key, int)):
            continue
        for value in VALUES:
            changed = copy.deepcopy(data)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            yield json.dumps(changed).encode()


def changed_bytes(text: bytes, draw: random.Random) -> bytes:
    """Something put in, one byte changed, or a part cut out."""
    at = draw.choice((0, len(text), draw.randrange(len(text))))
    kind = draw.random()
    if kind < 0.6:
        return text[:at] + draw.choice(TEXTS) + text[at:]
    if kind < 0.8:
        at = draw.randrange(len(text))
        return text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :]
    return text[:at] + text[at + draw.choice((1, 2, 10, len(text))) :]


def cases(sound: list[bytes], seed: int, count: int) -> list[bytes]:
    """`count` manifests: of values, bytes, or both; each from one of the sound ones."""
    draw = random.Random(seed)
    made: list[bytes] = []
    for _ in range(count):
        text, kind = draw.choice(sound), draw.random()
        if kind < 0.75:
            data = json.loads(text)
            for _ in range(draw.choice((1, 1, 1, 2, 4))):
                data = changed_value(data, draw) if isinstance(data, (dict, list)) and data else data
            text = json.dumps(data, indent=draw.choice((None, 1)), ensure_ascii=draw.random() < 0.9).encode(
                "utf-8", "surrogatepass"
            )
        if kind > 0.65:
            text = changed_bytes(text, draw)
        made.append(text)
    return made


def smaller(text: bytes, still: Callable[[bytes], bool]) -> bytes:
    """The text with every part cut out without which it still does what `still` asks: what a failure prints."""
    size = len(text) // 2
    while size:
        at = 0
        while at < len(text):
            shorter = text[:at] + text[at + size :]
            text, at = (shorter, at) if still(shorter) else (text, at + size)
        size //= 2
    return text
