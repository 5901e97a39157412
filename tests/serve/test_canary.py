"""The look at the golden images: by every replica, and one image at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed
from edgerecall.serve import service as served
from edgerecall.serve.service import Limits, Opening, Service

Make = Callable[..., Bundle]


@pytest.fixture
def service(fake_bundle: Make) -> Iterator[Service]:
    """Two replicas."""
    bundle = fake_bundle()
    opened = Opening(bundle.root, None, "fake", None, 2, 1, False, Limits())()
    yield opened
    opened.close()


def test_every_replica_is_looked_at(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.golden_problem() is None
    for wrong in service.model.pool.predictors:
        with monkeypatch.context() as patch:
            right = wrong.embed
            patch.setattr(wrong, "embed", lambda batch, right=right: -right(batch))
            problem = service.golden_problem()
        assert problem is not None and "embeddings differ" in problem
    assert service.golden_problem() is None


def test_one_that_is_always_at_work(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.limits = Limits(seconds=0.2)
    with service.model.pool.borrow(), monkeypatch.context() as patch:
        patch.setattr(served, "HANGS_S", 0)
        assert service.golden_problem(0.001) == "1 of 2 replicas did not come free within 0.2 s"
    assert service.golden_problem(0.001) is None


def test_slow_ones_have_their_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image for itself, not all of them together."""
    service.limits = Limits(seconds=0.2)
    monkeypatch.setattr(served, "HANGS_S", 0)
    for predictor in service.model.pool.predictors:
        right = predictor.embed
        monkeypatch.setattr(predictor, "embed", lambda batch, right=right: (time.sleep(0.15), right(batch))[1])
    assert service.golden_problem() is None


def test_one_that_has_died_is_passed_over(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with service.model.pool.borrow() as dead:
        monkeypatch.setattr(dead, "alive", False)
    assert service.golden_problem() is None
    (left,) = [one for one in service.model.pool.predictors if one is not dead]
    right = left.embed
    with monkeypatch.context() as patch:
        patch.setattr(left, "embed", lambda batch: -right(batch))
        assert "embeddings differ" in str(service.golden_problem())
    with service.model.pool.borrow():
        monkeypatch.setattr(left, "alive", False)
    assert service.golden_problem() == "the model's processes have died and start again"


def test_one_that_dies_at_its_look_is_passed_over(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    one = service.model.pool.predictors[0]

    def die(batch: np.ndarray) -> np.ndarray:
        monkeypatch.setattr(one, "alive", False)
        raise RuntimeFailed("worker was ended by signal 9")

    def fail(batch: np.ndarray) -> np.ndarray:
        raise RuntimeFailed("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(one, "embed", fail)
        with pytest.raises(RuntimeFailed, match="out of memory"):
            service.golden_problem()
    monkeypatch.setattr(one, "embed", die)
    assert service.golden_problem() is None
    assert service.alive == 1


def test_what_waits_for_a_replica_has_it_between_two_images(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = service.model.pool.predictors
    events: list[str] = []
    looking = threading.Event()

    def slowly(batch: np.ndarray, right: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        events.append("golden")
        looking.set()
        time.sleep(0.05)  # who waits is waiting by then
        return right(batch)

    for predictor in (one, other):
        monkeypatch.setattr(predictor, "embed", lambda batch, right=predictor.embed: slowly(batch, right))

    def ask() -> None:
        looking.wait()
        with service.model.pool.borrow():
            events.append("request")

    with service.model.pool.borrow():  # of two replicas one is left
        looked = threading.Thread(target=service.golden_problem, args=(0.02,))
        asked = threading.Thread(target=ask)
        looked.start()
        asked.start()
        asked.join()
    looked.join()
    assert events.index("request") <= 2 and events.count("golden") == 2 * len(service.bundle.golden()[0])
