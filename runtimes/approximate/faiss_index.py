"""An index by faiss (https://github.com/facebookresearch/faiss): inverted lists or a graph, and how far they look."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.text import one_line

Rows = NDArray[np.float32]
KIND = re.compile(r"faiss:(IVF|HNSW)([1-9]\d{0,8})(,[A-Za-z0-9_,+]+)?")
EXPECTED = "expected faiss:IVF<lists> or faiss:HNSW<links>, such as faiss:IVF1024 or faiss:HNSW32"
TRAINED = 256  # rows for each list, at most, from which the lists are made
TOP, ENOUGH = 10, 0.99  # neighbours of each row that is asked for, and the recall up to which it looks further
LEAST = {"IVF": 1, "HNSW": 16}  # lists, or candidates, that are looked at first; doubled
MOST = {"IVF": 1 << 20, "HNSW": 1 << 12}
SIZES = {"IVF": (1, 1 << 20), "HNSW": (2, 512)}  # lists, links
PARAMETER = {"IVF": "nprobe", "HNSW": "efSearch"}


def parsed(kind: str) -> tuple[str, int, str]:
    """An index's family, its lists or links, and its code, by faiss's words. InputError for what cannot be made."""
    found = KIND.fullmatch(kind)
    if not found:
        raise InputError(f"--index: {EXPECTED}, got {kind!r:.80}")
    family, size, code = found[1], int(found[2]), found[3] or ",Flat"
    least, most = SIZES[family]
    if not least <= size <= most:
        raise InputError(f"--index: {family}: expected {least} to {most}, got {size}")
    return family, size, code


def rows_sampled(kind: str) -> int:
    """From how many rows its lists and codes are made, at most."""
    return TRAINED * parsed(kind)[1]


def require_rows(kind: str, rows: int) -> None:
    """InputError where an index has more lists than there are rows."""
    family, size, _ = parsed(kind)
    if family == "IVF" and rows < size:
        raise InputError(f"--index: {kind} needs {size} rows or more, got {rows}: take fewer lists")


class FaissIndex:
    """Rows by their numbers, in the order in which they were added. effort: how many lists or candidates a search looks
    at. Thread-safe to search.
    """

    def __init__(self, index: Any, kind: str, effort: int) -> None:
        self._index, self.kind, self._family = index, kind, parsed(kind)[0]
        self.look(effort)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def build(
        cls,
        kind: str,
        dim: int,
        blocks: Iterable[Rows],
        sample: Rows,
        threads: int = 1,
        advance: Callable[[int], object] = lambda rows: None,
    ) -> FaissIndex:
        """Of rows float32 `(n, dim)` in blocks; by their inner products.

        sample: of the rows, from which lists and codes are made. InputError where faiss cannot make it of these.
        """
        import faiss

        family, size, code = parsed(kind)
        require_rows(kind, len(sample))
        faiss.omp_set_num_threads(threads)
        try:
            made = faiss.index_factory(dim, f"{family}{size}{code}", faiss.METRIC_INNER_PRODUCT)
            made.train(sample)
            for block in blocks:
                made.add(block)
                advance(len(block))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--index: {kind}: {reason(error)}") from error
        return cls(made, kind, LEAST[family])

    @classmethod
    def read(cls, data: bytes, kind: str, effort: int, dim: int, rows: int) -> FaissIndex:
        """From the bytes that `to_bytes` gave. InputError for others."""
        import faiss

        try:
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
            if index.d != dim or index.ntotal != rows:
                raise InputError(f"expected {rows} rows of {dim} numbers, got {index.ntotal} of {index.d}")
            return cls(index, kind, effort)
        except RuntimeError as error:
            raise InputError(f"not readable by faiss as {kind}: {reason(error)}") from error

    def to_bytes(self) -> bytes:
        """As faiss writes it."""
        import faiss

        return bytes(faiss.serialize_index(self._index).tobytes())

    def look(self, effort: int) -> None:
        """At so many lists or candidates in a search."""
        import faiss

        if not 1 <= effort <= MOST[self._family]:
            raise InputError(f"effort: expected 1 to {MOST[self._family]}, got {effort}")
        self.effort = effort
        faiss.ParameterSpace().set_index_parameter(self._index, PARAMETER[self._family], effort)

    def search(self, queries: Rows, k: int, threads: int = 1) -> NDArray[np.int64]:
        """The numbers of about the best k rows of each query, float32 `(n, dim)`, `(n, k)`; -1 where it found fewer."""
        import faiss

        faiss.omp_set_num_threads(threads)
        return np.asarray(self._index.search(np.ascontiguousarray(queries, np.float32), k)[1])

    def tune(self, measured: Callable[[], float]) -> float:
        """Looks further and further until the measured recall is `ENOUGH`, or it looks at all lists or at `MOST`
        candidates; the recall.
        """
        self.look(LEAST[self._family])
        most = min(MOST[self._family], int(getattr(self._index, "nlist", MOST[self._family])))
        recall = measured()
        while recall < ENOUGH and self.effort < most:
            self.look(min(2 * self.effort, most))
            recall = measured()
        return recall


def reason(error: BaseException) -> str:
    """What faiss says, without where in its source."""
    return re.sub(r"^Error in .* at \S+:\d+: ", "", one_line(str(error).rsplit("Error: ", 1)[-1], 1000))[:300]
