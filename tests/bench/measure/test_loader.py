"""Workers that load while other work goes on: no core taken from it, none left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import psutil
import pytest

from edgerecall.bench.measure import loader as module
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.loader import Loader
from edgerecall.bench.measure.row_runner import RowRunner
from edgerecall.bench.measure.runner import Run
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError

Make = Callable[..., Bundle]
OPTIONS = BenchOptions(runtimes=("fake", "lite"), pin=False)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: (0, 1))
    monkeypatch.setattr(module, "cpu_quota", lambda: None)


def loader_of(bundle: Bundle, options: BenchOptions = OPTIONS) -> Loader:
    return Loader(options.groups(bundle.quantisations)[0], bundle, options)


@pytest.mark.parametrize("ahead", [False, True])
def test_every_row_is_loaded_or_says_why_not(fake_bundle: Make, ahead: bool) -> None:
    loader, told = loader_of(fake_bundle()), list[tuple[str, float]]()
    if ahead:
        loader.begin()
    fake, lite = loader.runners(lambda what, share: told.append((what, share)))
    assert fake.alive and fake.row.load_ms is not None and not lite.alive and lite.row.status == "missing"
    assert {what for what, _ in told} <= {"loading fake", "loading lite"} and all(0 <= share < 1 for _, share in told)
    assert ahead or told == [("loading fake", 0.0), ("loading lite", 0.5)]
    assert fake.worker is not None
    pid = fake.worker.pid
    loader.close()
    loader.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(("threads", "quota"), [(2, None), (1, 1.0)])
def test_nothing_loads_ahead_where_no_core_is_left(
    fake_bundle: Make, monkeypatch: pytest.MonkeyPatch, threads: int, quota: float | None
) -> None:
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    loader = loader_of(fake_bundle(), BenchOptions(runtimes=("fake",), threads=(threads,), pin=False))
    before = threading.active_count()
    loader.begin()
    assert threading.active_count() == before and not loader._runners
    assert loader.runners(lambda what, share: None)[0].alive
    loader.close()


class Slow:
    """In a RowRunner's place: loads when it may."""

    may, begun = threading.Event(), threading.Event()
    made: ClassVar[list[Any]] = []

    def __init__(self, row: Any, *_: Any) -> None:
        self.row, self.closed = row, False
        self.made.append(self)
        self.begun.set()
        assert self.may.wait(20)

    def close(self) -> None:
        self.closed = True


def test_closed_while_it_loads(fake_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who interrupts does not wait for what loads; it is ended when it has loaded, and the next one never begun."""
    monkeypatch.setattr(module, "RowRunner", Slow)
    loader = loader_of(fake_bundle())
    loader.begin()
    assert Slow.begun.wait(20)
    began = time.monotonic()
    loader.close()
    assert time.monotonic() - began < 1 and not Slow.made[0].closed
    Slow.may.set()
    assert loader._thread is not None
    loader._thread.join(20)
    assert [one.closed for one in Slow.made] == [True]


def test_an_error_of_ours_comes_out_where_the_rows_are_asked_for(
    fake_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "RowRunner", broken)
    loader = loader_of(fake_bundle())
    loader.begin()
    with pytest.raises(ZeroDivisionError):
        loader.runners(lambda what, share: None)


def test_a_run_without_a_good_image_leaves_no_worker(
    fake_bundle: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    honest = RowRunner.__init__

    def noted(runner: RowRunner, *given: Any) -> None:
        honest(runner, *given)
        assert runner.worker is not None
        started.append(runner.worker.pid)

    monkeypatch.setattr(RowRunner, "__init__", noted)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"no image")
    seen: list[bool] = []
    run = Run(
        fake_bundle(),
        ImageSet.find(folder),
        BenchOptions(runtimes=("fake",), pin=False),
        lambda what, share: None,
        meanwhile=lambda: seen.append(run.first._thread is not None),
    )
    with pytest.raises(InputError, match="none of the 1 images could be read"):
        run.measure()
    assert seen == [True], "what is done meanwhile comes when loading has begun"
    run.close()
    if run.first._thread is not None:
        run.first._thread.join(20)
    assert len(started) <= 1 and not any(map(psutil.pid_exists, started))
