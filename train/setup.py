"""From a config to the parts of a training: device, network, data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from ..runtimes.core.errors import InputError
from ..runtimes.core.image_list import ImageList
from .config.training import TrainConfig
from .data.augment import Augmentation
from .data.loader import ImageMaker
from .distributed import launched, start
from .evaluate import exif_rule, read_list
from .network import EmbeddingNetwork
from .state.checkpoint import load_network, load_params


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


def build_network(config: TrainConfig, checkpoint: Path | None = None) -> EmbeddingNetwork:
    """The seeded network: with a checkpoint's weights, else with the pretrained ones when the config names some."""
    paddle.seed(config.Global.seed)
    np.random.seed(config.Global.seed)  # noqa: NPY002 - Paddle's initializers draw from it
    network = EmbeddingNetwork(config.Arch)
    checkpoint = checkpoint or config.Global.pretrained_model
    if checkpoint is not None:
        load_network(network, checkpoint)
        return network
    pretrained = config.Arch.Backbone.pretrained
    if pretrained is True:
        raise InputError("Arch.Backbone.pretrained: expected a .pdparams path or URL, or False")
    if pretrained:
        load_pretrained(network, pretrained)
    return network


def load_pretrained(network: EmbeddingNetwork, source: str) -> None:
    """Backbone weights from a path or URL; a classifier (`fc.*`) in the file is left out."""
    from .state.weights import weights_file

    load_params(network.backbone, weights_file(source), ignore=("fc.",))


def image_maker(config: TrainConfig) -> tuple[ImageList, ImageMaker]:
    """The training list, and what turns its entries into augmented images."""
    dataset = config.DataLoader.Train.dataset
    images = read_list(dataset)
    augment = Augmentation(
        dataset.transform_ops, "DataLoader.Train.dataset.transform_ops", dataset.backend, config.Global.image_shape
    )
    return images, ImageMaker(images, augment, exif_rule(dataset), config.Global.seed)
