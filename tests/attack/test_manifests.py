"""Python's reader of `bundle.json` beside the core's, on the same manifests: both take it for the same, or both refuse.

`EDGERECALL_ATTACK=N` makes N times as many; `EDGERECALL_SEED` others.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from manifest_cases import cases, every_value, smaller

from edgerecall.runtimes import _native
from edgerecall.runtimes.bundle.bundle import MANIFEST_BYTES
from edgerecall.runtimes.bundle.manifest import File, Manifest
from edgerecall.runtimes.core.errors import BundleError, InputError

LARGER = int(os.environ.get("EDGERECALL_ATTACK", "1"))
SEED = int(os.environ.get("EDGERECALL_SEED", "20261126"))


def files(entries: tuple[File, ...]) -> list[tuple[str, str, int, str]]:
    return [(one.role, one.path, one.bytes, one.sha256) for one in entries]


def by_python(text: bytes) -> dict[str, Any] | None:
    """What it reads, None where it refuses. Anything but BundleError is a fault of ours."""
    try:
        manifest = Manifest.parse(text, "WHERE")
    except BundleError as error:
        assert str(error).startswith("WHERE: ") and "\n" not in str(error)
        return None
    spec = manifest.spec
    return {
        "format": manifest.format_version,
        "input_name": spec.input_name,
        "input_shape": list(spec.input_shape),
        "embedding_dim": spec.embedding_dim,
        "normalize_embedding": spec.normalize_embedding,
        "artifacts": [
            (one.name, one.runtime, one.quantisation, list(one.targets), files(one.files)) for one in manifest.artifacts
        ],
        "golden": files(manifest.golden),
        "golden_images": list(manifest.golden_images),
    }


def by_core(text: bytes) -> dict[str, Any] | None:
    try:
        return dict(_native.read_manifest(text, "WHERE"))
    except InputError as error:
        assert str(error).startswith("WHERE: ") and "\n" not in str(error) and len(str(error)) < 400
        return None


@pytest.fixture(scope="module")
def sound(root: Path) -> list[bytes]:
    """The golden manifests, and one with everything that a manifest may hold."""
    new = (root / "tests" / "golden" / "bundle" / "bundle.json").read_bytes()
    old = (root / "tests" / "golden" / "bundle-format-1" / "bundle.json").read_bytes()
    full = json.loads(new)
    full["skipped"] = [{"name": "lite", "runtime": "lite", "reason": "no converter here"}]
    full["artifacts"].append(
        {
            **full["artifacts"][0],
            "quantisation": "int8",
            "recipe": {"scheme": "QDQ", "tool": "t", "version": "1", "calibration": ["0" * 64], "kept": ["head"]},
            "check": {"min_cosine": 0.999, "max_abs_error": 1e-3, "tolerance": 0.5},
            "unchecked": "another machine's",
        }
    )
    full["spec"]["preprocess"]["ops"].insert(1, {"op": "resize_short", "size": 40, "rounding": "round"})
    short = json.loads(new)
    short["spec"]["preprocess"]["ops"][-1] = {"op": "normalize"}
    short["artifacts"] = [
        {key: one[key] for key in ("name", "runtime", "targets", "files")} for one in short["artifacts"]
    ]
    texts = [new, old, json.dumps(full).encode(), json.dumps(short).encode()]
    assert all(by_python(text) for text in texts)
    return texts


def test_both_readers_agree(sound: list[bytes]) -> None:
    taken, texts = 0, cases(sound, SEED, 2000 * LARGER)
    for text in [*sound, *texts]:
        found = by_python(text), by_core(text)
        if found[0] != found[1]:
            alike = smaller(text, lambda one: by_python(one) != by_core(one)) if None in found else text
            pytest.fail(f"Python: {by_python(alike)}\ncore: {by_core(alike)}\nof {alike[:3000]!r}")
        taken += found[0] is not None
    assert len(texts) / 20 < taken < len(texts) / 2  # neither all sound nor all broken


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"{}",
        b"\0",
        b'"',
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1e999",
        b"NaN",
    ],
)
def test_what_is_no_manifest_at_all(text: bytes) -> None:
    assert by_python(text) is None and by_core(text) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b"\xef\xbb\xbf"),  # a byte order mark
        (b"", b"\xff\xfe"),
        (b'"format_version": 2', b'"format_version": true'),
        (b'"format_version": 2', b'"format_version": 2.0'),
        (b'"embedding_dim": DIM', b'"embedding_dim": DIM.0'),
        (b'"embedding_dim": DIM', b'"embedding_dim": "DIM"'),
        (b'"embedding_dim": DIM', b'"embedding_dim": ' + b"9" * 100_000),
        (b'"input_name": "x"', b'"input_name": ["x"]'),
        (b'"runtime": "', b'"runtime": ["' + b"a" * 100_000 + b'"], "x": "'),
        (b'"format_version": 2', b'"' + b"k" * 100_000 + b'": 1, "format_version": 2'),
    ],
)
def test_where_readers_of_json_differ(sound: list[bytes], old: bytes, new: bytes) -> None:
    """Refused by both, in a short line whatever stands in the file."""
    dim = str(json.loads(sound[0])["spec"]["embedding_dim"]).encode()
    old, new = old.replace(b"DIM", dim), new.replace(b"DIM", dim)
    assert old in sound[0]
    text = sound[0].replace(old, new, 1)
    assert by_python(text) is None and by_core(text) is None
    with pytest.raises(BundleError) as told:
        Manifest.parse(text, "WHERE")
    assert len(str(told.value)) < 1200


def test_a_zero_byte_behind(sound: list[bytes]) -> None:
    for end in (b"\0", b" \0", b"\0\0\n", b"\xef\xbb\xbf"):
        assert by_python(sound[0] + end) is None and by_core(sound[0] + end) is None
    assert by_python(sound[0] + b" \n\t") == by_core(sound[0] + b" \n\t") == by_python(sound[0])


def test_every_value_in_every_place(sound: list[bytes]) -> None:
    taken = 0
    for text in every_value(json.loads(sound[2])):
        found = by_python(text)
        assert found == by_core(text), text
        taken += found is not None
    assert taken > 100


def test_levels(sound: list[bytes]) -> None:
    """A value that neither looks into may be 64 deep with what it stands in."""
    for levels, allowed in ((61, True), (62, True), (63, False), (64, False)):
        text = sound[0].replace(b'"source": {', b'"source": {"deep": ' + b"[" * levels + b"]" * levels + b", ", 1)
        assert (by_python(text) is not None, by_core(text) is not None) == (allowed, allowed), levels


@pytest.mark.parametrize("fault", [{}, {"x": 1}])
def test_many_entries(sound: list[bytes], fault: dict[str, int]) -> None:
    """Of half a million, the first reader in C++ was quadratic: 90 s. As many as a file may hold."""
    data = json.loads(sound[0])
    entry = {"name": "x", "runtime": "y", "reason": "z"}
    data["skipped"] = [{**entry, **fault}] * int(MANIFEST_BYTES / (len(json.dumps({**entry, **fault})) + 2) * 0.99)
    text = json.dumps(data).encode()
    assert len(data["skipped"]) > 290_000 and len(text) < MANIFEST_BYTES
    begin = time.process_time()
    found = by_core(text)
    assert time.process_time() - begin < 15  # linear: a second or so; quadratic: from 30 on
    assert found == by_python(text) and (found is None) == bool(fault)


@pytest.mark.parametrize(
    "twice",
    ['"d": "\\ud800", "d": 1', '"d": ' + "[" * 80 + "]" * 80 + ', "d": 1', '"d": 1, "d": 1', '"d": {"e": 1, "e": 2}'],
)
def test_a_key_given_twice(sound: list[bytes], twice: str) -> None:
    text = sound[0].replace(b'"source": {', b'"source": {' + twice.encode() + b", ", 1)
    assert text != sound[0] and by_python(text) is None and by_core(text) is None


def test_format_1_with_both_names_of_a_quantisation(sound: list[bytes]) -> None:
    for change in (b'"precision": "fp16", "quantisation": "int8"', b'"quantisation": "int8", "precision": "fp16"'):
        text = sound[1].replace(b'"precision": "fp32"', change)
        assert text != sound[1] and by_python(text) is None and by_core(text) is None


def test_the_core_knows_what_the_schema_says(root: Path) -> None:
    """`schema.cpp` names every keyword, type and pattern, and `spec_json.cpp` every key of an operation: one that it
    did not read would be a second, silent preprocessing.
    """
    schema = json.loads((root / "runtimes" / "bundle" / "bundle.schema.json").read_text())
    core = (root / "cpp" / "src" / "base" / "schema.cpp").read_text()
    read = (root / "cpp" / "src" / "preprocess" / "spec_json.cpp").read_text()
    found: set[str] = set()

    def collect(rule: Any) -> None:
        if isinstance(rule, list):
            for one in rule:
                collect(one)
        elif isinstance(rule, dict):
            for key, inner in rule.items():
                if key in ("properties", "$defs"):
                    found.add(key)
                    collect(list(inner.values()))
                elif key not in ("default", "description", "mapping"):
                    found.add(key)
                    found.update(inner if key in ("type", "pattern") else "" for _ in (0,) if isinstance(inner, str))
                    collect(inner)

    collect(schema)
    missing = {word for word in found - {"", "propertyName"} if f'"{word}"' not in core}
    assert not missing
    by_name = schema["$defs"]["Preprocess"]["properties"]["ops"]["items"]["discriminator"]["mapping"]
    operations = {name: schema["$defs"][place.rpartition("/")[2]] for name, place in by_name.items()}
    keys = {key for rule in operations.values() for key in rule["properties"]}
    assert not {word for word in {*operations, *keys} if f'"{word}"' not in read}
