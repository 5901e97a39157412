"""`compare`: what fails, what is refused, and result files from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgerecall.bench.compare import compare_results
from edgerecall.bench.image_set import ImageSet
from edgerecall.bench.options import BenchOptions
from edgerecall.bench.rows import BenchResult, read_result
from edgerecall.bench.runner import run_bench
from edgerecall.runtimes.bundle import Bundle
from edgerecall.runtimes.errors import InputError
from edgerecall.runtimes.files import write_text

Make = Callable[..., Bundle]


def run(bundle: Bundle, data: Path, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "samples": 50, "rounds": 5, **options}
    return run_bench(bundle, ImageSet.find(data), BenchOptions(**settings), "tests", lambda what, share: None)


def test_the_same_bundle_twice_and_then_slowed_down(
    fake_bundle: Make, data: Path, tmp_path: Path, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    first, again = run(fake_bundle("a", sleep_ms=10), data), run(fake_bundle("b", sleep_ms=10), data)
    slower = run(fake_bundle("c", sleep_ms=12), data)
    few = run_bench(
        fake_bundle("d"),
        ImageSet.find(data).limited(12),
        BenchOptions(runtimes=("fake",), samples=4, rounds=2),
        "tests",
        lambda what, share: None,
    )
    files = {}
    for name, result in {"first": first, "again": again, "slower": slower, "few": few}.items():
        files[name] = tmp_path / f"{name}.json"
        write_text(files[name], result.to_json())
    assert read_result(files["first"]).to_json() == first.to_json()
    same = edgerecall("compare", files["first"], files["again"], "--fail-above", "5%")
    assert same.returncode == 0 and "FAILED" not in same.stdout
    worse = edgerecall("compare", files["first"], files["slower"])
    assert worse.returncode == 1 and "failed: fake: p50 ms" in worse.stdout
    assert edgerecall("compare", files["first"], files["slower"], "--fail-above", "0.3").returncode == 0
    assert edgerecall("compare", files["slower"], files["first"]).returncode == 0
    one_line(edgerecall("compare", files["first"], files["few"]), 2, "not comparable: images and labels", "--force")
    forced = edgerecall("compare", files["first"], files["few"], "--force", "--fail-above", "900%")
    assert "differs: images and labels" in forced.stdout


@pytest.fixture
def result(fake_bundle: Make, data: Path) -> BenchResult:
    """A short result."""
    return run(fake_bundle(), data, samples=10)


def changed(result: BenchResult, **fields: Any) -> BenchResult:
    """The result with other values in its row."""
    return replace(result, rows=[replace(result.rows[0], **fields)])


@pytest.mark.parametrize(
    ("field", "factor", "figure"),
    [
        ("peak_rss_mb", 1.2, "peak RSS MB"),
        ("size_mb", 1.2, "size MB"),
        ("recall1", 0.9, "recall@1"),
        ("mean_ap", 0.9, "mAP"),
    ],
)
def test_each_figure_can_fail(result: BenchResult, field: str, factor: float, figure: str) -> None:
    new = changed(result, **{field: getattr(result.rows[0], field) * factor})
    failures = compare_results(result, new, 0.05).failures
    assert len(failures) == 1 and failures[0].startswith(f"fake: {figure} ")
    assert not compare_results(new, result, 0.05).failures, "better is no failure"


def test_scatter_is_no_failure(result: BenchResult) -> None:
    p50 = result.rows[0].latency_p50_ms
    assert p50 is not None
    old = changed(result, round_medians_ns=[p50 * 1e6 * factor for factor in (0.8, 0.9, 1, 1.1, 1.2)])
    rounds = [p50 * 1e6 * factor for factor in (0.9, 1, 1.1, 1.2, 1.3)]
    found = compare_results(old, changed(result, latency_p50_ms=p50 * 1.1, round_medians_ns=rounds), 0.05)
    assert not found.failures and "within the rounds' scatter" in {change.remark for change in found.changes}


def test_rows_that_are_gone_or_broke(result: BenchResult) -> None:
    gone = replace(result, rows=[replace(result.rows[0], runtime="lite")])
    assert compare_results(result, gone, 0.05).failures == ["fake: not in the new result"]
    broke = changed(result, status="failed", reason="crashed")
    assert compare_results(result, broke, 0.05).failures == ["fake: was ok, now failed: crashed"]


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("processor", {"machine": {"cpu": "another"}}),
        ("governor", {"machine": {"governor": "powersave"}}),
        ("images and labels", {"images_sha256": "0" * 64}),
        ("pinning", {"options": {"pin": False}}),
    ],
)
def test_other_conditions_are_named(result: BenchResult, what: str, other: dict[str, Any]) -> None:
    fields = {k: {**getattr(result, k), **v} if isinstance(v, dict) else v for k, v in other.items()}
    assert [d.split(":")[0] for d in compare_results(result, replace(result, **fields), 0.05).differences] == [what]


@pytest.mark.parametrize(("field", "value"), [("threads", 2), ("precision", "bf16")])
def test_other_rows_are_named(result: BenchResult, field: str, value: Any) -> None:
    (difference,) = compare_results(result, changed(result, **{field: value}), 0.05).differences
    assert difference.startswith(f"fake: {field}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "got no JSON"),
        ("[]", "expected a bench result of schema 2, got None"),
        ('{"schema": 1}', "of schema 2, got 1: run the bench again"),
        ('{"schema": 2, "rows": 5}', "no bench result: '"),
    ],
)
def test_files_that_are_no_result(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_result(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "none.json")


@pytest.mark.parametrize("share", ["x", "-1%", "%"])
def test_shares(edgerecall: Callable[..., Any], tmp_path: Path, share: str) -> None:
    result = edgerecall("compare", tmp_path / "a", tmp_path / "b", "--fail-above", share)
    assert result.returncode == 2 and "expected a share such as 5%" in result.stderr
