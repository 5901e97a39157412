"""Why a device's row differs: what `why` says of the tensor and the embeddings that it handed in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import EdgeRecallError
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.predictor.interface import RunOptions
from ..schema.group_result import Evidence
from .sides import ALLOWED, SEALED, TENSOR_FILE, SideRequest, embed, max_error
from .why import why


def explain_posted(bundle: Bundle, evidence: Evidence) -> str | None:
    """One sentence; None where nothing that was handed in differs, or nothing here can look at it.

    A tensor is compared with what this machine makes of the same image. Without one the pixels are as sealed, and the
    artifact is opened here: where it gives the device's embeddings, the artifact is looked into.
    """
    try:
        if evidence.tensor is not None and evidence.image is not None:
            return of_tensor(bundle, evidence, evidence.image, evidence.tensor)
        return None if evidence.golden is None else of_graph(bundle, evidence, evidence.golden)
    except EdgeRecallError as error:  # not installed here, say: the row stands as it is
        return f"why is not known: {error}"


def of_tensor(bundle: Bundle, evidence: Evidence, image: Path, tensor: NDArray[np.float32]) -> str | None:
    """By the tensor that was made of an image."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-why-") as folder:
        path = Path(folder) / "there.npy"
        np.save(path, tensor)
        here = artifact_side(bundle, evidence)
        answer = why(bundle, image, here, SideRequest(f"{TENSOR_FILE}{path}"))
    return answer.cause.replace(f"{TENSOR_FILE}{path}", "its tensor") + f" ({image.name})" if answer.differs else None


def of_graph(bundle: Bundle, evidence: Evidence, golden: NDArray[np.float32]) -> str | None:
    """By its embeddings of the golden tensors."""
    paths, tensors, sealed = bundle.golden()
    if max_error(golden, sealed) <= ALLOWED:
        return None
    artifact = bundle.artifact(evidence.runtime, quantisation=evidence.quantisation)
    with open_predictor(bundle, evidence.runtime, RunOptions(), worker=True, artifact=artifact.name) as predictor:
        here = embed(predictor, *tensors)
    if max_error(here, sealed) <= ALLOWED:
        return f"{evidence.runtime} here gives what is sealed, from the same {artifact.name}: it is what ran there"
    worst = int(np.abs(here - sealed).max(axis=1).argmax())
    alike = "the same" if max_error(golden, here) <= ALLOWED else "another, which does not hold either"
    cause = why(bundle, paths[worst], SideRequest(SEALED), artifact_side(bundle, evidence)).cause
    return f"{evidence.runtime} here gives {alike}, from the same {artifact.name}: {cause}"


def artifact_side(bundle: Bundle, evidence: Evidence) -> SideRequest:
    """The artifact in the runtime here."""
    artifact = bundle.artifact(evidence.runtime, quantisation=evidence.quantisation)
    return SideRequest(f"{evidence.runtime}:{artifact.name}")
