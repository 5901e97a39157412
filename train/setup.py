"""From a config to the parts of a training: device, network, data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from ..runtimes.core.errors import InputError
from ..runtimes.preprocess.image_list import ImageList
from .backbones.pretrained import find_weights, weights_of
from .classify import class_list
from .config.training import TrainConfig
from .data.augment import Augmentation
from .data.loader import ImageMaker
from .distributed import launched, start
from .evaluate import eval_preprocess, exif_rule, read_list, same_images
from .heads import build_head
from .network import EmbeddingNetwork
from .state.checkpoint import (
    BACKBONE,
    HEAD,
    NEW,
    STUDENT,
    below,
    load_network,
    read_arrays,
    set_tensors,
    start_from,
    weights_path,
)
from .state.torch_file import is_torch_file

logger = logging.getLogger(__name__)
CLASSIFIERS = ("fc.", "out.")  # of networks trained on ImageNet, by the reference's names


def set_device(device: str) -> None:
    """Chooses the device and joins other processes; InputError when there is no GPU build or no GPU."""
    if device == "gpu" and (not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0):
        missing = "it sees no GPU" if paddle.is_compiled_with_cuda() else "this Paddle is a CPU build"
        raise InputError(
            f"Global.device: 'gpu' needs paddlepaddle-gpu and a GPU, but {missing}: use '-o Global.device=cpu' here"
        )
    if not launched():
        paddle.set_device(device)
        return
    if device == "cpu":
        paddle.set_device(device)  # on GPUs the launcher has chosen one for each process
    start(device)


def seeded_network(config: TrainConfig) -> EmbeddingNetwork:
    """The network at random, by the config's seed, from which what is built next draws on."""
    paddle.seed(config.Global.seed)
    np.random.seed(config.Global.seed)  # noqa: NPY002 - Paddle's initializers draw from it
    return EmbeddingNetwork(config.Arch)


def build_network(config: TrainConfig, checkpoint: Path | str | None = None) -> EmbeddingNetwork:
    """The seeded network; with a checkpoint's weights (or `Global.pretrained_model`'s), all of them."""
    network = seeded_network(config)
    source = checkpoint or config.Global.pretrained_model
    if source is not None:
        load_network(network, source)
    elif config.Arch.Backbone.pretrained:
        tell(load_pretrained(network, config))
    return network


def load_head(config: TrainConfig, checkpoint: Path | str | None) -> dict[str, Any]:
    """The state of the class head in a checkpoint (or `Global.pretrained_model`). InputError when it is not there."""
    source = checkpoint or config.Global.pretrained_model
    if source is None or config.Arch.Head is None:
        raise InputError("evaluation as a classifier needs the trained head: give --checkpoint")
    path = weights_path(source)
    whole = below(STUDENT, read_arrays(path))
    arrays = {name.removeprefix(HEAD): value for name, value in whole.items() if name.startswith(HEAD)}
    state = dict(build_head(config.Arch.Head).state_dict())
    set_tensors(state, arrays, path)
    return state


def tell(taken: str) -> None:
    """Logs what was taken of a file of weights; as a warning where something of the network is not in it."""
    logger.log(logging.WARNING if NEW in taken else logging.INFO, "%s", taken)


def build_trained(config: TrainConfig) -> tuple[EmbeddingNetwork, Any, str | None]:
    """The seeded network and class head (or None) that a training begins with: with as much as fits of the weights that
    the config names, which the line says, the rest at random.
    """
    if config.Arch.prefix is not None:
        raise InputError("Arch.prefix is for eval and export: a loss's prefixes train them")
    network = seeded_network(config)
    starts = config.Arch.Backbone.pretrained or config.Global.pretrained_model or config.Global.checkpoints
    if config.Arch.Backbone.freeze_norm and not starts:
        logger.warning("Arch.Backbone.freeze_norm without pretrained weights: there are no statistics to keep")
    head = None if config.Arch.Head is None else build_head(config.Arch.Head)
    if config.Global.pretrained_model is not None:
        path = weights_path(config.Global.pretrained_model)
        own = dict(network.state_dict())
        if head is not None:
            own |= {f"{HEAD}{name}": value for name, value in head.state_dict().items()}
        arrays = below(STUDENT, read_arrays(path))
        return network, head, start_from(own, arrays, path, config.Global.strict_load)
    if config.Arch.Backbone.pretrained:
        return network, head, load_pretrained(network, config)
    return network, head, None


def load_pretrained(network: EmbeddingNetwork, config: TrainConfig) -> str:
    """Backbone weights by `Arch.Backbone.pretrained`: of the table, a path or a URL; of a whole network's file the
    backbone's. Classifiers are left out. Gives what was taken, in a line.
    """
    options, backbone = config.Arch.Backbone, network.backbone
    if options.pretrained is True:
        path = find_weights(weights_of(options.name, options.use_ssld))
    else:
        path = weights_path(str(options.pretrained))
    arrays = read_arrays(path)
    if is_torch_file(path):
        arrays = renamed(arrays, backbone, options.name)
    arrays = below(BACKBONE, arrays)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(CLASSIFIERS)}
    return start_from(dict(backbone.state_dict()), arrays, path, config.Global.strict_load)


def renamed(arrays: dict[str, NDArray[Any]], backbone: Any, name: str) -> dict[str, NDArray[Any]]:
    """A PyTorch file's arrays under the backbone's names. InputError where those of the original are not known."""
    rules = getattr(backbone, "torch_names", None)
    if rules is None:
        raise InputError(f"Arch.Backbone.pretrained: {name} takes no PyTorch file: its names there are not known")
    found = {}
    for key, array in arrays.items():
        for pattern, text in rules:
            key = pattern.sub(text, key)
        found[key] = array
    return found


def check_labels(config: TrainConfig, labels: NDArray[np.int64]) -> None:
    """InputError where the class head or CenterLoss has no place for a label of the training list."""
    places = [
        ("Loss.Train.CenterLoss.num_classes", entry.CenterLoss.num_classes)
        for entry in config.Loss.Train
        if entry.CenterLoss is not None
    ]
    if config.Arch.Head is not None:
        places.append(("Arch.Head.class_num", config.Arch.Head.class_num))
    for where, count in places:
        if labels.min() < 0 or labels.max() >= count:
            raise InputError(
                f"{where}: {count} classes have labels 0 to {count - 1}, the training list has {labels.min()} to"
                f" {labels.max()}: raise it, or set DataLoader.Train.dataset.relabel"
            )


def with_epochs(config: TrainConfig, images: int, world: int) -> TrainConfig:
    """The config with `iter_per_epoch`: as it says, else what one pass over the training list takes, its last batch
    counted unless the sampler drops it.
    """
    settings = config.Global
    if settings.iter_per_epoch is not None:
        return config
    sampler = config.DataLoader.Train.sampler
    size = sampler.batch_size * world
    whole = max(images // size if sampler.drop_last else -(-images // size), 1)
    count = max(whole // settings.update_freq, 1) * settings.update_freq
    return config.model_copy(update={"Global": settings.model_copy(update={"iter_per_epoch": count})})


def check_evaluation(config: TrainConfig) -> None:
    """InputError where the evaluation after the first epoch would fail for its lists or transforms."""
    eval_preprocess(config)
    if config.Global.eval_mode == "classification":
        class_list(config)
        return
    pair = config.DataLoader.Eval
    read_list(pair.Gallery.dataset)
    if pair.Query is not None and not same_images(pair.Query.dataset, pair.Gallery.dataset):
        read_list(pair.Query.dataset)


def image_maker(config: TrainConfig) -> tuple[ImageList, ImageMaker]:
    """The training list, and what turns its entries into augmented images."""
    dataset = config.DataLoader.Train.dataset
    images = read_list(dataset, training=True)
    if len(np.unique(images.labels)) < 2:
        raise InputError(f"list {dataset.cls_label_path}: expected images of two classes or more, got one class")
    augment = Augmentation(
        dataset.transform_ops, "DataLoader.Train.dataset.transform_ops", dataset.backend, config.Global.image_shape
    )
    return images, ImageMaker(images, augment, exif_rule(dataset), config.Global.seed)
