"""What our histograms tell is what prometheus_client's own tell of the same values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgerecall.serve.histograms import Histograms

BOUNDS = (0.5, 1, 2, 1024, 1e9)
VALUES = st.lists(st.sampled_from([0, 0.5, 0.50001, 1, 1.5, 2, 3.0, 1024, 2e9, -1]), max_size=30)


def samples(registry: CollectorRegistry) -> dict[object, float]:
    """All but the time of the start, which ours do not tell."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_created")
    }


@given(VALUES, VALUES)
def test_the_same_as_the_librarys(some: list[float], others: list[float]) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    theirs = Histogram("seconds", "Text.", ["stage"], buckets=BOUNDS, registry=registries[0])
    ours = Histograms("seconds", "Text.", BOUNDS, registries[1], "stage", ("a", "b"))
    plain = Histogram("plain", "Text.", buckets=BOUNDS, registry=registries[0])
    own = Histograms("plain", "Text.", BOUNDS, registries[1]).of[""]
    for name, values in (("a", some), ("b", others)):
        theirs.labels(name)
        for value in values:
            theirs.labels(name).observe(value)
            ours.of[name].observe(value)
            plain.observe(value)
            own.observe(value)
    assert samples(registries[0]) == samples(registries[1])
