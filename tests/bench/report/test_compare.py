"""`compare`: what fails, what is refused, and result files from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.report.compare import compare_results
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult, read_result
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.core.files import write_text

Make = Callable[..., Bundle]


def run(bundle: Bundle, data: Path, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "samples": 50, "rounds": 5, **options}
    return run_bench(bundle, ImageSet.find(data), BenchOptions(**settings), "tests", lambda what, share: None)


@pytest.mark.alone  # what others do beside it is as much as the 20 % to be found
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


def with_hits(result: BenchResult, hits: np.ndarray) -> BenchResult:
    """The result as of queries in classes of 5, with these hits; average precision like them."""
    row = replace(
        result.rows[0],
        hits="".join(map(str, hits)),
        recall1=float(hits.mean()),
        average_precisions=hits.astype(float).tolist(),
        mean_ap=float(hits.mean()),
    )
    return replace(result, rows=[row], query_classes=(np.arange(len(hits)) // 5).tolist())


def test_what_the_queries_cannot_tell(
    result: BenchResult, tmp_path: Path, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(1000) < 0.9).astype(int)
    noise = hits.copy()  # as many won as lost
    noise[rng.choice(np.flatnonzero(hits == 1), 10, replace=False)] = 0
    noise[rng.choice(np.flatnonzero(hits == 0), 10, replace=False)] = 1
    worse = np.where(rng.random(1000) < 0.1, 0, hits)
    old, unsure, bad = (with_hits(result, one) for one in (hits, noise, worse))
    assert [c.verdict for c in compare_results(old, old, 9.0).changes if c.figure in ("recall@1", "mAP")] == ["ok"] * 2
    found = compare_results(old, unsure, 9.0)
    assert not found.failures and len(found.doubts) == 2, found
    assert [c.verdict for c in found.changes if c.doubt] == ["cannot tell (queries)"] * 2
    assert re.search(r"recall@1 .*, about [\d,]+ queries would tell", found.doubts[0])
    assert [line.split()[1] for line in compare_results(old, bad, 9.0).failures] == ["recall@1", "mAP"]
    files = [tmp_path / name for name in ("old.json", "unsure.json", "bad.json")]
    for file, one in zip(files, (old, unsure, bad), strict=True):
        write_text(file, one.to_json())
    assert edgerecall("compare", files[0], files[1], "--fail-above", "900%").returncode == 0
    strict = edgerecall("compare", files[0], files[1], "--fail-above", "900%", "--strict")
    assert strict.returncode == 3 and "cannot tell (queries)" in strict.stdout
    assert edgerecall("compare", files[0], files[2], "--fail-above", "900%", "--strict").returncode == 1
    write_text(files[1], unsure.to_json().replace('"hits": "', '"hits": "x'))
    one_line(edgerecall("compare", files[0], files[1]), 2, "expected hits of 0 and 1")


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

    def slower(share: float, scatter: float) -> list[str]:
        rounds = [p50 * 1e6 * (1 + scatter * step) for step in (-2, -1, 0, 1, 2)]
        old = changed(result, round_medians_ns=rounds)
        factor = 1 + share
        new = changed(result, latency_p50_ms=p50 * factor, round_medians_ns=[r * factor for r in rounds])
        found = compare_results(old, new, 0.05)
        assert ("not surely more" in found.changes[0].remark) is not bool(found.failures)
        return found.failures

    assert not slower(0.1, 0.1)
    assert slower(0.1, 0.01) and slower(0.5, 0.1)


def test_disturbed_rounds_of_the_old_run_hide_nothing(result: BenchResult) -> None:
    p50 = result.rows[0].latency_p50_ms
    assert p50 is not None
    old = changed(result, round_medians_ns=[p50 * 1e6 * factor for factor in (1, 1.6, *[1] * 7, 1.6)])
    new = changed(result, latency_p50_ms=1.5 * p50, round_medians_ns=[p50 * 1e6 * 1.5] * 10)
    assert len(compare_results(old, new, 0.05).failures) == 1


def test_nothing_compared_is_no_success(result: BenchResult) -> None:
    broken = changed(result, status="failed", reason="crashed")
    assert compare_results(broken, broken, 0.05).failures == ["the old result has no sound row to compare with"]
    problem = replace(result, problem="preprocessing differs from the sealed tensors")
    assert compare_results(result, problem, 0.05).failures == [
        "the new run: preprocessing differs from the sealed tensors"
    ]


def test_the_stricter_gate_counts(result: BenchResult) -> None:
    lax = replace(result, options={**result.options, "gates": {"max_recall_drop": 1.0, "min_cosine": -1.0}})
    assert result.rows[0].recall1 is not None
    lost = replace(changed(lax, recall1=result.rows[0].recall1 - 0.1, cosine_min=0.5), options=lax.options)
    assert [line.split(":")[1].split()[0] for line in compare_results(result, lost, 0.05).failures] == [
        "recall@1",
        "cosine",
    ]
    assert not compare_results(lax, lost, 0.05).failures
    with pytest.raises(InputError, match="gates"):
        compare_results(result, replace(result, options={**result.options, "gates": {"max": 1}}), 0.05)


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
        ("preprocessing", {"options": {"preprocess": {"ops": []}}}),
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
        ("[]", "expected a bench result of schema 3, got None"),
        ('{"schema": 1}', "of schema 3, got 1: run the bench again"),
        ('{"schema": 3, "rows": 5}', "no bench result: '"),
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


def test_figures_that_are_none(
    result: BenchResult, tmp_path: Path, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    """A missing figure is a failure, a negative one no result."""
    import json

    old = tmp_path / "old.json"
    write_text(old, result.to_json())
    new = tmp_path / "new.json"

    def changed(**fields: Any) -> Path:
        data = json.loads(result.to_json())
        data["rows"][0].update(fields)
        return write_text(new, json.dumps(data)) or new

    for name in ("latency_p50_ms", "peak_rss_mb", "size_mb", "cosine_min", "recall1", "mean_ap"):
        found = edgerecall("compare", old, changed(**{name: None}))
        assert found.returncode == 1 and "not in the new result" in found.stdout, name
    for name, value in (("latency_p50_ms", -1.0), ("size_mb", -5.0), ("recall1", -0.5), ("peak_rss_mb", float("nan"))):
        one_line(edgerecall("compare", old, changed(**{name: value})), 2, f"{name}: expected a figure, got")
    data = json.loads(result.to_json())
    data["options"]["gates"] = [[]]
    write_text(new, json.dumps(data))
    one_line(edgerecall("compare", old, new), 2, "'options.gates': expected limits by name")
