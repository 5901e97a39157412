"""Why an int8 artifact embeds otherwise than its float model, in words: a fault, or rounding and in which layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact
from ...runtimes.core.errors import EdgeRecallError, InputError
from ...runtimes.preprocess.ops import Preprocess
from ..measure.image_set import ImageSet
from ..measure.tensor_cache import TensorCache
from ..retrieval.metrics import retrieval_scores
from .ncnn_layers import NcnnLayers
from .qdq_layers import QdqLayers
from .quantised_layers import Int8Fault, LayerLoss, QuantisedLayers, mean_cosine, ranked

# Whose artifacts can be read here, layer by layer; the others' by their ONNX twin.
READERS: dict[str, type[QdqLayers] | type[NcnnLayers]] = {"onnxruntime": QdqLayers, "ncnn": NcnnLayers}
TWINS = "onnxruntime"
BATCH = 8  # images in memory at a time
LOOKED_AT, NAMED = 4, 3  # golden images; layers
ROUNDING = 1e-4  # by which the cosine of two runtimes of one int8 graph may fall short of 1
Tensors = NDArray[np.float32]


def int8_words(
    bundle: Bundle, artifact: Artifact, tensor: Tensors, embedding: Tensors, images: ImageSet | None = None
) -> str:
    """What makes it differ. tensor: float32 `(3, H, W)`, looked at beside golden ones; embedding: what it gave for it,
    `(1, D)`. images: labelled, for recall with the worst layers in float.

    An artifact of OpenVINO is explained by the ONNX one of the same recipe, which it was made from.
    """
    twin = readable_twin(bundle, artifact)
    if twin is None:
        return "no ONNX artifact of the same recipe tells which layers lose most"
    plain = next((a for a in bundle.manifest.artifacts if (a.runtime, a.quantisation) == (twin.runtime, "fp32")), None)
    if plain is None:
        return f"no float32 artifact of {twin.runtime} tells which layers lose most"
    try:
        layers = READERS[twin.runtime].read(*(Path(bundle.files(one)["model"]) for one in (plain, twin)))
        _, golden, _ = bundle.golden()
        seen = np.concatenate([tensor[None], golden[: LOOKED_AT - 1]])
        own = None if twin is artifact else own_graph(layers, twin, seen[0], embedding)
        return own or fault_words(layers.faults(seen)) or rounding_words(layers, seen, bundle, images)
    except EdgeRecallError as error:
        return f"its layers cannot be looked at: {error}"


def fault_words(faults: list[Int8Fault]) -> str | None:
    """The first, and how many more."""
    if not faults:
        return None
    more = f"; and {len(faults) - 1} more, the next in '{faults[1].layer}'" if faults[1:] else ""
    return f"{faults[0].what} in '{faults[0].layer}': {faults[0].text}{more}"


def own_graph(layers: QuantisedLayers, twin: Artifact, tensor: Tensors, embedding: Tensors) -> str | None:
    """What is said where an artifact differs from its ONNX twin more than that does from float32."""
    quantised, plain = (layers.runner(model)(tensor[None]) for model in (layers.quantised, layers.plain))
    apart, lost = (1 - mean_cosine(one, quantised) for one in (embedding, plain))
    if apart <= max(lost, ROUNDING):
        return None
    return (
        f"its own graph: {twin.name}, of the same recipe, has cosine {1 - lost:.6f} with float32, and this"
        f" {1 - apart:.6f} with {twin.name}"
    )


def rounding_words(layers: QuantisedLayers, seen: Tensors, bundle: Bundle, images: ImageSet | None) -> str:
    """The layers that lose most."""
    cosine, losses = layers.losses(seen)
    first = ranked(losses)[:NAMED]
    told = whole(first, cosine, layers.cosine_with([one.name for one in first], seen))
    if images is not None:
        told += f"; {recall_words(layers, [one.name for one in first], bundle.spec.preprocess, images)}"
    return f"rounding, of {len(losses)} layers most in {', '.join(map(words, first))}; {told}"


def recall_words(layers: QuantisedLayers, names: list[str], preprocess: Preprocess, images: ImageSet) -> str:
    """recall@1 of the float model, of the int8 one, and of that with its worst layers in float. InputError without
    labels.
    """
    if images.labels is None:
        raise InputError("recall with layers in float takes images with labels: give a list")
    models = (layers.plain, layers.quantised, layers.in_float(names[:1]), layers.in_float(names))
    runners = [layers.runner(model) for model in models]
    found: list[list[Tensors]] = [[] for _ in runners]
    cache = TensorCache(images.paths, preprocess, lambda share: None)
    try:
        for tensors in cache.batches(BATCH):
            for own, runner in zip(found, runners, strict=True):
                own.append(runner(tensors))
        labels = images.labels[cache.kept]
    finally:
        cache.close()
    recall = [retrieval_scores(np.concatenate(own), labels, ks=(1,)).recall[1] for own in found]
    return (
        f"recall@1 of {len(labels)} images {recall[0]:.4f} in float32, {recall[1]:.4f} in int8,"
        f" {recall[2]:.4f} with the first in float, {recall[3]:.4f} with these"
    )


def readable_twin(bundle: Bundle, artifact: Artifact) -> Artifact | None:
    """The artifact itself where it can be read, else the ONNX one of the same recipe."""
    if artifact.runtime in READERS:
        return artifact
    return next(
        (a for a in bundle.manifest.artifacts if a.runtime == TWINS and a.recipe == artifact.recipe is not None), None
    )


def words(loss: LayerLoss) -> str:
    """A layer with its figures."""
    return f"'{loss.name}' ({loss.kind}, {loss.sqnr_db:.1f} dB)"


def whole(first: list[LayerLoss], cosine: float, together: float) -> str:
    """What keeping layers in float would give."""
    named = "these" if len(first) > 1 else "it"
    return f"mean cosine {cosine:.4f}, with the first in float {first[0].cosine:.4f}, with {named} {together:.4f}"
