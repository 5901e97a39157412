"""`inference_general.yaml` and its like: the reference's keys of a whole system, PP-ShiTu, as a typed model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..core.config import Frozen
from ..detect.settings import Labels, Place, Results, Share
from ..gallery.manifest import Storage
from .predict_config import BinarizeOptions, RecConfig, RecGlobal

MOST_FOUND = 10_000


class ShituGlobal(RecGlobal):
    """`Global`: those of recognition, and the detector's, which a sealed detector brings itself."""

    det_inference_model_dir: Place = None
    rec_nms_thresold: Annotated[float, Field(ge=0, le=1)] = 0.05
    image_shape: Any = None
    threshold: Share = 0.2
    max_det_results: Results = 5
    label_list: Labels | None = None
    labe_list: Labels | None = None  # as the reference has it too

    @model_validator(mode="before")
    @classmethod
    def without_search(cls, data: Any) -> Any:
        """They have their place here."""
        return data


class IndexProcess(Frozen):
    """index_method: any of the reference's; the search here is exact, and takes rows away whatever it says.

    score_thres: the least similarity of an answer; hamming_radius: the largest distance, with dist_type hamming.
    storage is ours: how the gallery keeps embeddings.
    """

    index_method: Literal["HNSW32", "IVF", "Flat"] = "HNSW32"
    image_root: Path
    index_dir: Path
    data_file: Path
    index_operation: Literal["new", "append", "remove"] = "new"
    delimiter: Annotated[str, Field(min_length=1, max_length=16)] = "\t"
    dist_type: Literal["IP", "hamming"] = "IP"
    embedding_size: Annotated[int, Field(ge=1, le=65536)]
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    return_k: Annotated[int, Field(ge=1, le=MOST_FOUND)] = 5
    score_thres: Annotated[float, Field(ge=-1, le=1)] = 0.5
    hamming_radius: Annotated[float, Field(ge=0, le=65536)] | None = None
    storage: Storage = "float32"

    @model_validator(mode="after")
    def a_radius_for_distances(self) -> IndexProcess:
        if self.dist_type == "hamming" and self.hamming_radius is None:
            raise ValueError("dist_type hamming needs hamming_radius")
        return self


class ShituPostProcess(Frozen):
    """`RecPostProcess`: with Binarize embeddings are compared by the signs of their numbers."""

    main_indicator: str | None = None
    Binarize: BinarizeOptions


class ShituConfig(RecConfig):
    """The whole file."""

    Global: ShituGlobal
    IndexProcess: IndexProcess
    RecPostProcess: ShituPostProcess | None = None  # type: ignore[assignment]
    DetPreProcess: dict[str, Any] | None = None
    DetPostProcess: Any = None

    @model_validator(mode="before")
    @classmethod
    def recognition_alone(cls, data: Any) -> Any:
        """Every section has its place here."""
        return data

    @model_validator(mode="after")
    def one_kind_of_embedding(self) -> ShituConfig:
        if (self.IndexProcess.dist_type == "hamming") != (self.RecPostProcess is not None):
            raise ValueError("dist_type hamming and RecPostProcess's Binarize go together: give both or neither")
        return self
