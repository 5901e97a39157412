"""Preprocessing by name, and torchvision's as it prints itself."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.ops import CenterCrop, Normalize, ResizeExact, ResizeShort
from edgerecall.runtimes.preprocess.presets import CLIP, IMAGENET, PRESETS, find_preprocess, printed_transform

NORM = "Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])"
# As timm 1.0.31 and torchvision 0.28 print theirs.
TIMM = """Compose(
    Resize(size=235, interpolation=bicubic, max_size=None, antialias=True)
    CenterCrop(size=(224, 224))
    MaybeToTensor()
    Normalize(mean=tensor([0.4850, 0.4560, 0.4060]), std=tensor([0.2290, 0.2240, 0.2250]))
)"""
WEIGHTS = """ImageClassification(
    crop_size=[224]
    resize_size=[232]
    mean=[0.485, 0.456, 0.406]
    std=[0.229, 0.224, 0.225]
    interpolation=InterpolationMode.BILINEAR
)"""
V2 = """Compose(
      Resize(size=[192, 224], interpolation=InterpolationMode.BICUBIC, antialias=True)
      ToImage()
      ToDtype(scale=True)
      Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], inplace=False)
)"""
OPENAI = """Compose(
    Resize(size=224, interpolation=bicubic, max_size=None, antialias=None)
    CenterCrop(size=(224, 224))
    <function _convert_image_to_rgb at 0x7f3c1a2b4c10>
    ToTensor()
    Normalize(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
)"""


def short(size: int, filter: str) -> ResizeShort:
    return ResizeShort(size=size, rounding="truncate", backend="pil", filter=filter)  # type: ignore[arg-type]


CROP = CenterCrop(height=224, width=224, margin="round")


@pytest.mark.parametrize(
    ("text", "geometry", "normalize"),
    [
        (PRESETS["imagenet"], (short(256, "bilinear"), CROP), IMAGENET),
        (PRESETS["clip"], (short(224, "bicubic"), CROP), CLIP),
        (TIMM, (short(235, "bicubic"), CROP), IMAGENET),
        (WEIGHTS, (short(232, "bilinear"), CROP), IMAGENET),
        (V2, (ResizeExact(height=192, width=224, backend="pil", filter="bicubic"),), IMAGENET),
        (OPENAI, (short(224, "bicubic"), CROP), CLIP),
    ],
)
def test_what_is_printed_is_what_is_done(text: str, geometry: tuple[object, ...], normalize: object) -> None:
    found = printed_transform(text, "a file")
    assert found.geometry == geometry and found.decode.exif == "ignore"
    assert (found.normalize.mean, found.normalize.std) == normalize
    assert found.normalize == Normalize(mean=found.normalize.mean, std=found.normalize.std)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["ToImage()", "Resize(size=[256], interpolation=bilinear)", NORM], "Resize: expected before ToTensor"),
        (
            ["CenterCrop(size=8)", "<function <lambda> at 0x7f3c1a2b4c10>", "ToTensor()", NORM],
            "as torchvision prints them",
        ),
        (["CenterCrop(size=8)", "<function to_bgr at 0x7f3c1a2b4c10>", "ToTensor()", NORM], "as torchvision prints"),
        (["CenterCrop(size=8)", "ToTensor()", NORM, NORM], "Normalize: expected Normalize once, at the end"),
        ([NORM, "CenterCrop(size=8)", "ToTensor()"], "Normalize: expected after ToTensor"),
        (["CenterCrop(size=8)", "PILToTensor()", NORM], "Normalize: expected after ToTensor, or ToImage and ToDtype"),
        (["CenterCrop(size=8)", "ToTensor()", "ToTensor()", NORM], "ToTensor: expected after resizes and crops"),
        (["CenterCrop(size=8, padding_mode='edge')", "ToTensor()", NORM], "the option padding_mode is not known"),
        (["CenterCrop(size=8)", "ToTensor()", "Normalize(mean=tensor(), std=[1, 1, 1])"], "as torchvision prints them"),
        (["CenterCrop(size=(224, 224))", NORM], "Normalize: expected after ToTensor"),
        (["CenterCrop(size=(224, 224))", "ToTensor()"], "expected ToTensor and Normalize at the end"),
        (["Resize(size=256, interpolation=bilinear)", "ToTensor()", NORM], "expected a resize or crop to a fixed size"),
        (["RandomResizedCrop(size=(224, 224))", "ToTensor()", NORM], "RandomResizedCrop: is not known here"),
        (["Resize(size=(8, 8), interpolation=lanczos4)", "ToTensor()", NORM], "Resize: expected interpolation as one"),
        (["Resize(size=8, max_size=9)", "ToTensor()", NORM], "no max_size"),
        (["CenterCrop(size=(0, 8))", "ToTensor()", NORM], "expected a size of 1 to 8192, got 0"),
        (["CenterCrop(size=(8, 8, 8))", "ToTensor()", NORM], "expected a size or two of them"),
        (["CenterCrop(size=8)", "ToImage()", "ToDtype(scale=False)", NORM], "ToDtype: expected scale=True"),
        (["CenterCrop(size=8)", "ToTensor()", "Normalize(mean=[0.5], std=[0.5])"], "expected mean as three numbers"),
        (["CenterCrop(size=8)", "ToTensor()", "Normalize(mean=[0, 0, 0], std=[0, 0, 0])"], "std"),
        (
            ["CenterCrop(size=8)", "ToTensor()", "Normalize(mean=tensor([0.1235, 0, 0]), std=[1, 1, 1])"],
            "as torchvision",
        ),
        (["CenterCrop(size=__import__('os').getpid())"], "expected transforms as torchvision prints them"),
        (["()" * 9000], "expected transforms as torchvision prints them"),
    ],
)
def test_what_we_do_not_do_is_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Compose(\n" + "\n".join(f"    {line}" for line in lines) + "\n)")
    with pytest.raises(InputError) as caught:
        find_preprocess(str(tmp_path / "t.txt"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_preprocess("imagenet").output_shape == find_preprocess("clip").output_shape == (3, 224, 224)
    with pytest.raises(InputError, match="did you mean 'imagenet'"):
        find_preprocess("imagnet")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm:resnet50: needs timm"):
        find_preprocess("timm:resnet50")
    # What of timm is called, so that its own printed transform comes through.
    timm, data = types.ModuleType("timm"), types.ModuleType("timm.data")
    means = {"mean": (0.111111, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    config = types.SimpleNamespace(to_dict=lambda: {"crop_pct": 0.95, **means})

    def get_pretrained_cfg(name: str) -> object:
        if "." in name:
            raise RuntimeError("Invalid pretrained tag")
        return {"resnet50": config}.get(name)

    timm.get_pretrained_cfg = get_pretrained_cfg  # type: ignore[attr-defined]
    data.resolve_data_config = lambda pretrained_cfg: pretrained_cfg  # type: ignore[attr-defined]
    data.create_transform = lambda crop_pct, **_: TIMM if crop_pct == 0.95 else ""  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    found = find_preprocess("timm:resnet50")
    assert found.geometry[0] == short(235, "bicubic") and found.normalize.mean == (0.111111, 0.2, 0.3)
    with pytest.raises(InputError, match=r"timm:resnet50.bogus: Invalid pretrained tag"):
        find_preprocess("timm:resnet50.bogus")
    with pytest.raises(InputError, match="timm knows no pretrained 'resnet5'"):
        find_preprocess("timm:resnet5")


def test_a_yaml_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "RecPreProcess:\n  transform_ops:\n    - ResizeImage: {size: [32, 48]}\n    - NormalizeImage: {}\n"
    )
    assert find_preprocess(str(tmp_path / "p.yaml")).output_shape == (3, 48, 32)
