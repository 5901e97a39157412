"""The config's `DataLoader`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...runtimes.core.config import Frozen
from ...runtimes.preprocess.ops import Backend
from .base import Images, NonNegative, Positive, Rate, Workers


class Dataset(Frozen):
    """A list file and how its images become tensors. backend: who resizes where an operation does not say.

    name: PaddleClas's; all read a list, but Market1501 the folder `cls_label_path` of the data set as it is published.
    relabel: whether training labels are counted anew from 0, for a class head. delimiter is accepted: a list's columns
    are found without it.
    """

    name: Literal["VeriWild", "SOP", "ImageNetDataset", "ICartoonDataset", "Market1501"] = "SOP"
    image_root: Path
    cls_label_path: Path
    backend: Backend = "cv2"
    relabel: bool = False
    delimiter: str | None = None
    transform_ops: list[Any]


class IdentityBatches(Frozen):
    """What batches share. They never end, and `Global.iter_per_epoch` cuts them into epochs; where that is left out,
    drop_last says whether the list's last batch counts. max_iters and total_epochs change nothing. batch_size: of one
    process.
    """

    batch_size: Annotated[Images, Field(ge=2)]
    drop_last: bool = False
    shuffle: Literal[True] = True
    total_epochs: NonNegative = 0
    max_iters: Positive | None = None


class RandomIdentityOptions(IdentityBatches):
    """Passes over the list: `batch_size / num_instances` identities, `num_instances` images of each."""

    name: Literal["DistributedRandomIdentitySampler"]
    num_instances: Images

    @property
    def instances(self) -> int:
        """Images of an identity."""
        return self.num_instances


class PKOptions(IdentityBatches):
    """Independent draws of P identities and K images. sample_method: identities by their images, or all alike.

    id_list, ratio: first and last of each range of identities, by the order in which the list comes to them, and how
    many times more often those are drawn.
    """

    name: Literal["PKSampler"]
    sample_per_id: Images
    sample_method: Literal["sample_avg_prob", "id_avg_prob"] = "sample_avg_prob"
    id_list: tuple[NonNegative, ...] = ()
    ratio: tuple[Rate, ...] = ()

    @model_validator(mode="after")
    def ranges(self) -> PKOptions:
        if len(self.id_list) != 2 * len(self.ratio):
            raise ValueError(
                f"id_list: expected first and last of {len(self.ratio)} ranges, as ratio has, got {len(self.id_list)}"
            )
        return self

    @property
    def instances(self) -> int:
        """Images of an identity."""
        return self.sample_per_id


class ShuffledOptions(IdentityBatches):
    """Passes over the list in random order; the last batch of a pass is filled up from its beginning."""

    name: Literal["DistributedBatchSampler", "BatchSampler"]

    @property
    def instances(self) -> int:
        """Images of an identity: any."""
        return 1


class EvalSampler(Frozen):
    """In list order."""

    name: Literal["DistributedBatchSampler", "BatchSampler"] = "DistributedBatchSampler"
    batch_size: Images = 64
    drop_last: Literal[False] = False
    shuffle: Literal[False] = False


class Loader(Frozen):
    """num_workers: for training, decoding processes (0: threads of this one); for evaluation, threads.

    use_shared_memory is accepted: processes always use it, threads need none.
    """

    num_workers: Workers = 2
    use_shared_memory: bool = True


class TrainData(Frozen):
    """`DataLoader.Train`."""

    dataset: Dataset
    sampler: Annotated[RandomIdentityOptions | PKOptions | ShuffledOptions, Field(discriminator="name")]
    loader: Loader = Loader()

    @model_validator(mode="after")
    def whole_identities(self) -> TrainData:
        size, instances = self.sampler.batch_size, self.sampler.instances
        if size % instances:
            raise ValueError(f"sampler: batch_size {size} is no multiple of {instances} images per identity")
        return self


class EvalData(Frozen):
    """`DataLoader.Eval.Gallery` and `.Query`."""

    dataset: Dataset
    sampler: EvalSampler = EvalSampler()
    loader: Loader = Loader()


class EvalPair(Frozen):
    """`DataLoader.Eval`. Query defaults to the gallery."""

    Gallery: EvalData
    Query: EvalData | None = None


class DataSection(Frozen):
    """`DataLoader`."""

    Train: TrainData
    Eval: EvalPair
