"""What is never shipped, however fast and however like its baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgerecall.bench.measure.parity import Embedded, chance, judge
from edgerecall.bench.report.tables import notes
from edgerecall.bench.schema.recommendation import verdict
from edgerecall.bench.schema.rows import BenchResult, Row, read_result
from edgerecall.runtimes.embed.model import l2_normalize


def judged(embeddings: np.ndarray, labels: np.ndarray) -> BenchResult:
    """A row that agrees with its baseline in everything."""
    own = Embedded("fast", l2_normalize(embeddings.astype(np.float32)), labels)
    row = Row("fast", latency_p50_ms=1.0, round_medians_ns=[1e6] * 5)
    judge(row, own, own)
    about = {"command": "tests", "bundle": "b", "machine": {}, "packages": {}, "options": {}}
    return BenchResult(**about, images=100, images_sha256="", labelled=True, baseline="fast", rows=[row])


def test_chance_by_simulation() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [2, 5, 12, 1])
    first = np.array([[rng.choice(np.delete(np.arange(20), query)) for query in range(19)] for _ in range(4000)])
    assert abs(float((labels[first] == labels[:19]).mean()) - chance(labels)) < 0.003


def test_recall_at_chance_is_not_shipped() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    noise = judged(rng.standard_normal((100, 16)), labels)
    assert "not told apart from chance (0.0404) by 100 queries" in verdict(noise)
    assert verdict(noise).startswith("ship none of these: recall@1 of")
    assert any("fast: not to be shipped: recall@1" in line for line in notes(noise))
    centres = rng.standard_normal((20, 16))[labels]
    fine = judged(centres + 0.3 * rng.standard_normal((100, 16)), labels)
    assert verdict(fine).startswith("ship fast:") and fine.rows[0].recall1_chance == chance(labels)


def test_collapsed_embeddings_are_not_shipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    collapsed = judged(1 + 1e-3 * rng.standard_normal((100, 16)), labels)
    assert "ship none of these: the embeddings are nearly all the same" in verdict(collapsed)
    (tmp_path / "bench.json").write_text(collapsed.to_json())
    assert read_result(tmp_path / "bench.json").rows[0].meaningless == collapsed.rows[0].meaningless


def test_too_few_images_to_tell_are_no_fault_of_the_model() -> None:
    """Of one class, or so few that not even recall 1 would be above chance: a warning, and no verdict."""
    rng = np.random.default_rng(0)
    for sizes in ([12], [9, 1], [2, 1]):
        labels = np.repeat(np.arange(len(sizes)), sizes)
        centres = rng.standard_normal((len(sizes), 16))[labels]
        found = judged(centres + 0.1 * rng.standard_normal((len(labels), 16)), labels)
        assert verdict(found).startswith("ship fast:") and found.rows[0].meaningless is None
        assert any("cannot tell recall from chance" in line for line in found.rows[0].warnings)
