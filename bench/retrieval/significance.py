"""The binomial test by `scipy.special`, as all of the bench's statistics: `scipy.stats` takes .4 s more to import."""

from __future__ import annotations


def binomial_above(hits: int, count: int, share: float) -> float:
    """The p-value of the binomial test that more than `share` of draws hit, of `hits` seen among `count`."""
    from scipy import special

    return float(special.bdtrc(hits - 1, count, share))
