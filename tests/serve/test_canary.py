"""The look at the golden images: by every replica, and one image at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgerecall.runtimes.bundle.bundle import Bundle
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
    monkeypatch.setattr(served, "PROVEN_S", 0.2)
    with service.model.pool.borrow():
        assert service.golden_problem(0.001) == "1 of 2 replicas did not come free within 0.2 s"
    assert service.golden_problem(0.001) is None


def test_one_that_has_died_is_passed_over(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with service.model.pool.borrow() as dead:
        monkeypatch.setattr(dead, "alive", False)
    assert service.golden_problem() is None
    (left,) = [one for one in service.model.pool.predictors if one is not dead]
    right = left.embed
    monkeypatch.setattr(left, "embed", lambda batch: -right(batch))
    assert service.golden_problem() is not None


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
