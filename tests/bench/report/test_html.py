"""The page: loads nothing, shows every row, and survives names and images from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.report import tables
from edgerecall.bench.report.html import html_report
from edgerecall.bench.report.plots import pareto
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult, Pair, Row
from edgerecall.runtimes.bundle.bundle import Bundle

Make = Callable[..., Bundle]


@pytest.fixture
def result(fake_bundle: Make, data: Path) -> BenchResult:
    """Four rows, two of them missing."""
    options = BenchOptions(runtimes=("fake", "lite"), precision=("fp32", "bf16"), samples=10, rounds=5)
    return run_bench(fake_bundle(), ImageSet.find(data), options, "tests <&>", lambda what, share: None)


class Links(HTMLParser):
    """Everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loading = {"src", "srcset", "data", "poster", "action"} | ({"href"} if tag in ("link", "a", "base") else set())
        self.found += [f"{tag} {value}" for name, value in attrs if name in loading and value]
        assert tag not in ("script", "iframe", "object", "embed")


def test_the_page_is_whole_and_loads_nothing(result: BenchResult) -> None:
    page = html_report(result)
    links = Links()
    links.feed(page)
    assert links.found and all(link.startswith("img data:image/jpeg;base64,") for link in links.found)
    assert not re.search(r"url\((?!#)|@import", page)
    for row in result.rows:
        assert f'<td class="left">{row.name}</td>' in page
    assert page.count("<svg") == 3 and "tests &lt;&amp;&gt;" in page
    assert "#010203" not in page and "#040506" not in page, "colours that the page does not know"
    assert "Across runtimes" in page and "Where fake bf16 differs most from fake fp32" in page


def test_accuracy_stands_before_speed(result: BenchResult) -> None:
    """A table wider than the page hides its last columns: recall is never among them."""
    result.rows[0].delta_recall1, result.rows[0].delta_recall1_low, result.rows[0].delta_recall1_high = -0.01, -0.02, 0
    page = html_report(result)
    table = page[page.index('<table class="rows">') : page.index("</table>")]
    titles = re.findall(r"<th[^>]*>([^<]*)</th>", table)
    assert titles[:5] == ["row", "status", "recall@1", "chance", "delta recall@1"]
    (first, *_, failed) = re.findall(r"<tr(?: class=\"bad\")?>(<td.*?)</tr>", table, re.DOTALL)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", first)
    assert cells[0] == result.rows[0].name and cells[4] == "-0.0100 (-0.0200 to 0.0000)"
    assert len(cells) == len(titles) == len(re.findall("<td", failed))
    assert result.rows[-1].reason and result.rows[-1].reason not in table, "a reason widens no column"
    assert titles == [column.title for column in tables.COLUMNS], "one order for all printers"
    assert re.search(r"\.rows th \{[^}]*white-space: normal", page), "titles of several words may wrap"


def test_images_that_are_gone_and_names_from_outside(result: BenchResult) -> None:
    result.worst_pairs = [Pair("<b>", 0.5, "/none/<x>.jpg", "/none/y.jpg", "/none/z.jpg")]
    result.bad_images = ["<script>"]
    page = html_report(result)
    assert "<script" not in page and "&lt;x&gt;.jpg" in page and "&lt;b&gt;" in page


def test_a_page_without_any_measured_row(fake_bundle: Make, data: Path) -> None:
    options = BenchOptions(runtimes=("lite",), samples=4, rounds=2)
    nothing = run_bench(fake_bundle(), ImageSet.find(data), options, "tests", lambda what, share: None)
    page = html_report(nothing)
    assert "<svg" not in page and "ship none of these" in page


def test_the_front_holds_what_no_other_beats() -> None:
    figures = {"a": (1.0, 0.5), "b": (2.0, 0.6), "c": (3.0, 0.55), "d": (1.0, 0.4), "e": (4.0, 0.9)}
    rows = [Row("x", name=name, latency_p50_ms=ms, recall1=recall) for name, (ms, recall) in figures.items()]
    assert [row.name for row in pareto(rows)] == ["a", "b", "e"]
