"""The C++ core. What goes in is checked; the work runs without the interpreter's lock, on the caller's buffers.

Its errors are those of `core.errors`: InputError, UnsupportedImage, RuntimeUnavailable, RuntimeFailed.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

def decode(encoded: bytes, apply_exif: bool, max_pixels: int) -> NDArray[np.uint8]:
    """JPEG or PNG bytes -> uint8 `(height, width, 3)`, as Pillow's `convert("RGB")`. InputError, UnsupportedImage."""

def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """uint8 `(h, w, 3)` turned and mirrored as an EXIF orientation of 1 to 8 says; other values change nothing."""

class Geometry:
    """Resizes and crops, from JSON: a list in the form of bundle.json's `preprocess.ops`."""

    def __init__(self, json: str) -> None: ...
    def apply(self, image: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
        """uint8 `(h, w, 3)`, rows contiguous -> uint8 `(H, W, 3)`. InputError when a size does not allow it."""

class Preprocess:
    """A spec's preprocessing, from JSON in the form of bundle.json's `preprocess`."""

    def __init__(self, json: str) -> None: ...
    def run(self, image: NDArray[np.uint8], out: NDArray[np.float32] | NDArray[np.float16], max_pixels: int) -> None:
        """uint8 `(h, w, 3)` -> `(3, H, W)` in `out`."""

    def run_batch(
        self,
        sources: Sequence[str | bytes],
        out: NDArray[np.float32] | NDArray[np.float16],
        threads: int,
        max_pixels: int,
    ) -> list[tuple[bool, str] | None]:
        """Files (str) and encoded images (bytes) into slots of `out`, `(n, 3, H, W)`, on `threads` threads.

        For each image None, or (whether its format is unsupported, what is wrong).
        """

class Evaluation(TypedDict):
    """queries: how many have a relevant image; means are over them.

    first_rank: int64 `(n,)`, of each query's best relevant image, from 1; 0 where it has none.
    nearest: int64 `(n,)`, gallery index of each query's first image; -1 where none is left.
    average_precision: float64 `(n,)`; 0 where a query has no relevant image.
    """

    queries: int
    recall: list[float]
    mean_ap: float
    r_precision: float
    map_at_r: float
    first_rank: NDArray[np.int64]
    nearest: NDArray[np.int64]
    average_precision: NDArray[np.float64]

def evaluate(
    queries: NDArray[np.float32],
    query_labels: NDArray[np.int64],
    query_cameras: NDArray[np.int64] | None,
    gallery: NDArray[np.float32] | None,
    gallery_labels: NDArray[np.int64] | None,
    gallery_cameras: NDArray[np.int64] | None,
    ks: Sequence[int],
    threads: int,
    progress: Callable[[float], object] | None,
) -> Evaluation:
    """Ranks and metrics; without a gallery the queries are their own. InputError, KeyboardInterrupt."""

class Gallery:
    """Embeddings in memory, searched exactly. storage: float32, float16, int8 (with a float32 scale a row) or binary.

    Similarity is the inner product of what is stored with the query (int8: with the query's own int8 codes; binary: the
    cosine of both's signs), highest first, equal ones by row. Threads may search at the same time. Ctrl-C stops a
    search.
    """

    def __init__(self, dim: int, storage: str = "float32") -> None: ...
    def __len__(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def bytes(self) -> int:
        """Of the stored embeddings."""

    def add(self, rows: NDArray[np.float32]) -> None:
        """Appends rows `(n, dim)`. InputError on values that are not finite, and while a search runs."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        threads: int = 1,
        progress: Callable[[float], object] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best k rows of each query and their similarities, both `(n, k)`; -1 and -inf where there are fewer."""

class StoredRows:
    """Rows as they lie in arrays, C-contiguous, which may map a file and stay as they are.

    values `(n, dim)`: float32, uint16 (bits of float16) or int8, by the storage; for binary uint64 `(n, words)`, where
    bit i % 64 of word i // 64 is the sign of number i of `dim`. scales: float32 `(n,)`, for int8.
    rest: int16 `(n, dim)`, what int8's codes leave (see `to_int8`): with it rows are found by the numbers that both
    make, exactly. excluded: uint8 `((n + 7) // 8,)`, where bit `row % 8` of byte `row // 8` is set a row is not found.
    longest: no row is longer; longest_rest: nor is any `scale * rest / 65536`.
    InputError for other shapes and types.
    """

    def __init__(
        self,
        storage: str,
        values: NDArray[Any],
        scales: NDArray[np.float32] | None = None,
        rest: NDArray[np.int16] | None = None,
        excluded: NDArray[np.uint8] | None = None,
        *,
        longest: float,
        longest_rest: float = 0.0,
        dim: int = 0,
    ) -> None: ...

def search_rows(
    parts: Sequence[StoredRows],
    queries: NDArray[np.float32],
    k: int,
    threads: int = 1,
    progress: Callable[[float], object] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As `Gallery.search`, over all parts, whose rows are numbered through."""

def to_int8(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int16]]:
    """float32 `(n, dim)` -> codes `(n, dim)`, scales of the rows, `(n,)`, and what the codes leave, int16 `(n, dim)`:
    `scale * (code + rest / 65536)` has 24 bits of the row's largest number.
    """

class BitGallery:
    """Embeddings in 1 to 4 bits a number and two float32 a row, less `centre`, float32 `(dim,)`: a `CompressedGallery`.

    Found by the Hamming distance of the signs, ranked by the inner product of what is stored with the query.
    Threads may search at the same time. Ctrl-C stops a search.
    """

    def __init__(self, centre: NDArray[np.float32], bits: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def bits(self) -> int: ...
    @property
    def bytes(self) -> int:
        """Of the stored rows."""

    def add(self, rows: NDArray[np.float32]) -> None:
        """Appends rows `(n, dim)`. InputError on values that are not finite, and while a search runs."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        candidates: int,
        threads: int = 1,
        progress: Callable[[float], object] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best k, of the candidates nearest by sign, of each query, and their similarities, both `(n, k)`; -1 and
        -inf where there are fewer.
        """

class _Manifest(TypedDict):
    format: int
    input_name: str
    input_shape: list[int]
    embedding_dim: int
    normalize_embedding: bool
    artifacts: list[tuple[str, str, str, list[str], list[tuple[str, str, int, str]]]]
    golden: list[tuple[str, str, int, str]]
    golden_images: list[str]

def read_manifest(text: bytes, where: str) -> _Manifest:
    """What the core understands of a `bundle.json`: files as role, path, bytes, sha256; artifacts as name, runtime,
    quantisation, targets, files. InputError, which begins with `where`.
    """

def built_runtimes() -> list[str]:
    """The runtimes that this build of the core has a predictor for."""

class Predictor:
    """One loaded model in one runtime, driven by the core. files: `role -> path`. precision: fp32, fp16 or bf16.

    library: the runtime's shared library or its folder, for those that are opened at run time; empty: the environment's
    or the system's. RuntimeUnavailable, RuntimeFailed, InputError.
    """

    version: str
    precision: str
    threads: int  # 0: it does not tell
    detail: dict[str, str]

    def __init__(
        self,
        runtime: str,
        files: dict[str, str],
        input_name: str,
        input_shape: tuple[int, int, int],
        embedding_dim: int,
        threads: int,
        precision: str,
        batch: int,
        library: str,
    ) -> None: ...
    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 `(n, 3, H, W)`, C-contiguous -> the model's raw output `(n, D)`. RuntimeFailed."""

    def execution_record(self, batch: NDArray[np.float32]) -> tuple[str, str, dict[str, int]] | None:
        """Precision, record and operators of an inference; None where the runtime does not tell."""
