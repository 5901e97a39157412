"""What our histograms and counters tell is what prometheus_client's own tell of the same values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgerecall.serve.tallies import Counts, Histograms

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
def test_histograms(some: list[float], others: list[float]) -> None:
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


LABELS = st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["200", "400"]), st.sampled_from(["rest", "grpc"])))


@given(LABELS)
def test_counts(given: list[tuple[int, str, str]]) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    theirs = Counter("requests", "Text.", ["code", "protocol"], registry=registries[0])
    ours = Counts("requests", "Text.", registries[1], "code", "protocol")
    plain = Counter("images", "Text.", registry=registries[0])
    own = Counts("images", "Text.", registries[1])
    assert samples(registries[0]) == samples(registries[1]) == {("images_total", frozenset()): 0}
    for count, *labels in given:
        theirs.labels(*labels).inc(count)
        ours.add(count, *labels)
        plain.inc(count)
        own.add(count)
    assert samples(registries[0]) == samples(registries[1])
