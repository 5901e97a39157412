"""Why a device's row differs: what `why` says of the tensor and the embeddings that it handed in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import EdgeRecallError
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.embed.verify import check_problem, compare
from ...runtimes.predictor.interface import RunOptions
from ..schema.group_result import Evidence
from .sides import SEALED, TENSOR_FILE, SideRequest, embed
from .why import why


def explain_posted(bundle: Bundle, evidence: Evidence) -> str | None:
    """A sentence or two; None where nothing that was handed in differs.

    Embeddings of the golden tensors: the artifact is opened here; where it leaves its tolerance here too, it is looked
    into. A tensor: it is compared with what this machine makes of the same image.
    """
    try:
        told = [] if evidence.golden is None else [of_graph(bundle, evidence, evidence.golden)]
        if evidence.tensor is not None and evidence.image is not None:
            told.append(of_tensor(bundle, evidence, evidence.image, evidence.tensor))
    except EdgeRecallError as error:  # the runtime is not installed here, say
        return f"why is not known: {error}"
    return "; ".join(one for one in told if one) or None


def of_tensor(bundle: Bundle, evidence: Evidence, image: Path, tensor: NDArray[np.float32]) -> str | None:
    """By the tensor that was made of an image."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-why-") as folder:
        path = Path(folder) / "there.npy"
        np.save(path, tensor)
        answer = why(bundle, image, artifact_side(bundle, evidence), SideRequest(f"{TENSOR_FILE}{path}"))
    return answer.cause.replace(f"{TENSOR_FILE}{path}", "its tensor") + f" ({image.name})" if answer.differs else None


def of_graph(bundle: Bundle, evidence: Evidence, golden: NDArray[np.float32]) -> str | None:
    """By its embeddings of the golden tensors."""

    def differ(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> bool:
        check = compare(ours, theirs, evidence.runtime, "fp32", evidence.quantisation)
        return check_problem(check) is not None

    paths, tensors, sealed = bundle.golden()
    if not differ(golden, sealed):
        return None
    artifact = bundle.artifact(evidence.runtime, quantisation=evidence.quantisation)
    with open_predictor(bundle, evidence.runtime, RunOptions(), worker=True, artifact=artifact.name) as predictor:
        here = embed(predictor, *tensors)
    file = f"from the same {artifact.name}"
    if not differ(here, sealed):
        return f"{evidence.runtime} here gives what is sealed, {file}: it is what ran there"
    worst = int(np.abs(here - sealed).max(axis=1).argmax())
    alike = "another, which does not hold either" if differ(golden, here) else "the same"
    cause = why(bundle, paths[worst], SideRequest(SEALED), artifact_side(bundle, evidence)).cause
    return f"{evidence.runtime} here gives {alike}, {file}: {cause}"


def artifact_side(bundle: Bundle, evidence: Evidence) -> SideRequest:
    """The artifact in the runtime here."""
    artifact = bundle.artifact(evidence.runtime, quantisation=evidence.quantisation)
    return SideRequest(f"{evidence.runtime}:{artifact.name}")
