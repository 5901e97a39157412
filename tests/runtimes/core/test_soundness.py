"""What no trained network gives: NaN and infinity by name, embeddings that are zero or one for all images."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import UnsoundModel
from edgerecall.runtimes.core.soundness import embedding_problem, require_finite


def test_the_first_bad_tensor_is_named() -> None:
    good = np.ones((2, 3), dtype=np.float32)
    require_finite({"b": good, "counts": np.ones(2, dtype=np.int64)}, "checkpoint x")
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[1, 2] = value
        with pytest.raises(UnsoundModel, match=r"^checkpoint x: 'c' holds NaN or infinity: 1 of 6 .* first c\[1, 2\]"):
            require_finite({"d": bad, "c": bad, "a": good}, "checkpoint x")
    assert UnsoundModel.exit_code == 1


def test_embeddings() -> None:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((5, 16)).astype(np.float32)
    assert embedding_problem(fine) is None
    assert embedding_problem(1e-2 * fine + 1) is None  # much alike, and told apart
    one = np.repeat(fine[:1], 5, axis=0)
    assert "5 different images have one and the same embedding" in str(embedding_problem(one))
    scaled = one * np.arange(1, 6, dtype=np.float32)[:, None]  # L2 normalisation makes them one
    assert "one and the same" in str(embedding_problem(scaled))
    assert embedding_problem(one, np.zeros((5, 3, 2, 2), np.float32)) is None  # of one and the same image
    assert embedding_problem(one[:1]) is None
    zero, nan = fine.copy(), fine.copy()
    zero[3], nan[2, 1] = 0, np.nan
    assert "image 3 is zero" in str(embedding_problem(zero))
    assert "image 2 holds NaN" in str(embedding_problem(nan))
