"""What a training minimises: the weighted sum of the config's losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn

from ...runtimes.core.errors import InputError
from ..config.loss import CenterOptions, CrossEntropyOptions, HardTripletOptions, LossEntry, LossSection, PairOptions
from .embedding_loss import EmbeddingLoss, build_loss
from .memory import CrossBatchMemory
from .other_losses import Center, CrossEntropy, HardTriplet


class Outputs(NamedTuple):
    """Of the network for a batch, float32: the backbone's features `(N, F)`, embeddings `(N, D)`, the head's logits
    `(N, C)` or None.
    """

    backbone: paddle.Tensor
    features: paddle.Tensor
    logits: paddle.Tensor | None = None


class TrainLoss(nn.Layer):
    """The sum; each part sees what its options name."""

    def __init__(self, section: LossSection, features: int, dim: int, classes: int | None, images: int) -> None:
        """features, dim: of the backbone and the embedding; classes: of the head, None without one; images: of the
        training list.
        """
        super().__init__()
        self.entries = section.Train
        widths = {"backbone": features, "features": dim}
        parts = [build_part(entry, widths[entry.options.feature_from], classes, images) for entry in self.entries]
        self.parts = nn.LayerList(parts)
        self.values = [0.0] * len(parts)

    def forward(self, outputs: Outputs, labels: paddle.Tensor) -> paddle.Tensor:
        """Float32 scalar, of labels int64 `(N,)`. `values` then holds the parts', not weighed."""
        total = None
        with paddle.amp.auto_cast(enable=False):
            for index, (entry, part) in enumerate(zip(self.entries, self.parts, strict=True)):
                name = "logits" if isinstance(part, CrossEntropy) else entry.options.feature_from
                seen: paddle.Tensor = getattr(outputs, name)
                value = part(seen.astype("float32"), labels.reshape([-1]))
                self.values[index] = value.detach()
                weighed = entry.options.weight * value
                total = weighed if total is None else total + weighed
        return total

    @property
    def embedding_loss(self) -> EmbeddingLoss | None:
        """The pair loss with the memory, else the first pair loss."""
        pairs = [part for part in self.parts if isinstance(part, EmbeddingLoss)]
        return next((part for part in pairs if part.xbm is not None), pairs[0] if pairs else None)

    @property
    def xbm(self) -> CrossBatchMemory | None:
        """The memory, if there is one."""
        loss = self.embedding_loss
        return None if loss is None else loss.xbm

    @property
    def iteration(self) -> int:
        """Calls so far."""
        return self.embedding_loss.iteration if self.embedding_loss is not None else 0

    @iteration.setter
    def iteration(self, value: int) -> None:
        for part in self.parts:
            if isinstance(part, EmbeddingLoss):
                part.iteration = value

    def named_values(self) -> dict[str, float]:
        """Each part's value of the last call, not weighed, by its name; empty where there is but one."""
        if len(self.entries) == 1:
            return {}
        return {entry.name: float(value) for entry, value in zip(self.entries, self.values, strict=True)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by the part's place and its own name, as the reference has it."""
        found: dict[str, Any] = {}
        for index, part in enumerate(self.parts):
            found |= {f"{index}.{name}": value for name, value in part.state_dict().items()}
        return found

    def load(self, arrays: dict[str, Any], where: str) -> None:
        """Takes a checkpoint's. InputError when it is of another size or missing."""
        for index, part in enumerate(self.parts):
            begin = f"{index}."
            own = {name.removeprefix(begin): value for name, value in arrays.items() if name.startswith(begin)}
            if isinstance(part, EmbeddingLoss) and part.xbm is not None:
                memory = {name.removeprefix("xbm."): v for name, v in own.items() if name.startswith("xbm.")}
                part.xbm.load(memory, where)
            elif isinstance(part, Center):
                found, shape = own.get("centers"), tuple(part.centers.shape)
                if found is None or found.shape != shape:
                    got = getattr(found, "shape", None)
                    raise InputError(f"{where}: CenterLoss: expected centers {shape}, found {got}")
                part.centers.set_value(found.astype(np.float32))

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        """What of it is trained, by its names in `state`."""
        for index, part in enumerate(self.parts):
            for name, value in part.named_parameters():
                yield f"{index}.{name}", value


def build_part(entry: LossEntry, dim: int, classes: int | None, images: int) -> Any:
    """One loss of the list. InputError when it does not fit the network."""
    options = entry.options
    if isinstance(options, PairOptions):
        return build_loss(options, dim, images)
    if isinstance(options, HardTripletOptions):
        return HardTriplet(options.margin, options.normalize_feature)
    if isinstance(options, CenterOptions):
        if options.feat_dim != dim:
            raise InputError(f"Loss.Train.CenterLoss: feat_dim {options.feat_dim}, but {dim} dimensions come in")
        return Center(options.num_classes, options.feat_dim)
    assert isinstance(options, CrossEntropyOptions)
    if classes is None:
        raise InputError("Loss.Train.CELoss: needs logits: add Arch.Head")
    return CrossEntropy(options.smoothing)
