"""Adds quantised artifacts to a bundle: each is made, checked on the golden images, and only then in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import FORMAT_VERSION, MANIFEST, Artifact, Skipped
from ...runtimes.core.errors import EdgeRecallError, InputError, UnsoundModel
from ...runtimes.core.files import atomic_folder
from ..context import DiskFull
from ..exporter import Report, checked
from .artifacts import CALIBRATED, QUANTISED, Work, make_quantised
from .calibration import Calibration
from .recipes import RecipeFile


def quantize_bundle(
    bundle: Bundle,
    target: Path,
    names: Sequence[str],
    calibration: Calibration | None,
    recipes: RecipeFile,
    command: str,
    report: Report,
    replace: bool = False,
) -> Bundle:
    """Writes `bundle` with the artifacts `names` (of `QUANTISED`) to `target`, which may be where it lies; opens it.

    calibration: for int8. replace: artifacts of these names that are there already. An artifact that cannot be made or
    gives garbage is listed in `skipped`. InputError where none is left; the bundle is as it was then.
    """
    manifest = bundle.manifest
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(f"{bundle.root}: a bundle of an earlier format: run 'edgerecall upgrade {bundle.root}' first")
    there = {artifact.name for artifact in manifest.artifacts}
    if not replace and (both := [name for name in names if name in there]):
        raise InputError(f"{bundle.root} has {', '.join(both)} already: give --force to make it again")
    if calibration is None and (without := [name for name in names if name in CALIBRATED]):
        raise InputError(f"{', '.join(without)}: int8 needs images to measure ranges on: give --calibrate")
    bundle.check()
    _, tensors, embeddings = bundle.golden()
    in_place = target.resolve() == bundle.root.resolve()
    with (
        atomic_folder(target, MANIFEST if in_place else None) as folder,
        tempfile.TemporaryDirectory(prefix="edgerecall-") as scratch,
    ):
        for path in sorted({file.path for file in bundle.all_files()}):
            if path.split("/")[0] not in names:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.root / path, folder / path)
        stored = None
        if calibration is not None:
            stored = Path(scratch) / "tensors.npy"
            np.save(stored, calibration.tensors)
        hashes = calibration.hashes if calibration is not None else ()
        work = Work(bundle, folder, Path(scratch), recipes, stored, hashes)
        made: list[Artifact] = []
        skipped = [one for one in manifest.skipped if one.name not in names]
        for name in names:
            try:
                artifact = make_quantised(name, work)
                alone = manifest.model_copy(update={"artifacts": (artifact,)})
                made.append(checked(artifact, Bundle(folder, alone), tensors, embeddings))
                report(name, None, made[-1].unchecked)
            except (DiskFull, UnsoundModel):
                raise
            except EdgeRecallError as error:
                shutil.rmtree(folder / name, ignore_errors=True)
                skipped.append(Skipped(name=name, runtime=QUANTISED[name].runtime, reason=str(error)))
                report(name, str(error))
        if not made:
            raise InputError(f"no artifact could be made: {skipped[-1].name}: {skipped[-1].reason}")
        kept = [artifact for artifact in manifest.artifacts if artifact.name not in names]
        commands = {**manifest.source.get("quantised", {}), **{artifact.name: command for artifact in made}}
        update = {
            "artifacts": (*kept, *made),
            "skipped": tuple(skipped),
            "source": {**manifest.source, "quantised": commands},
        }
        Bundle(folder, manifest.model_copy(update=update)).save()
    return Bundle.open(target)
