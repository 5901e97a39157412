"""The spec: what a model eats and gives."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ..core.config import Frozen
from ..predictor.interface import ModelIO
from ..preprocess.ops import Preprocess


class Spec(Frozen):
    """A model's input, output and preprocessing.

    normalize_embedding: whether the embedding is L2-normalised (float32, outside the graph) before use.
    """

    input_name: str
    input_shape: tuple[int, int, int]
    embedding_dim: Annotated[int, Field(ge=1, le=65536)]
    normalize_embedding: bool = True
    preprocess: Preprocess

    @model_validator(mode="after")
    def shapes_agree(self) -> Spec:
        if self.preprocess.output_shape != self.input_shape:
            raise ValueError(
                f"preprocess gives {self.preprocess.output_shape}, the model takes {tuple(self.input_shape)}"
            )
        return self

    @property
    def io(self) -> ModelIO:
        """What a predictor needs to know of this."""
        return ModelIO(self.input_name, self.input_shape, self.embedding_dim)
