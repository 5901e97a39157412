"""Adds quantised artifacts to a bundle: each is made, checked on the golden images, and only then in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import FORMAT_VERSION, MANIFEST, Artifact, Skipped
from ...runtimes.core.errors import EdgeRecallError, InputError, UnsoundModel
from ...runtimes.core.files import atomic_folder, refuse_to_replace
from ..context import DiskFull, FormatFailed
from ..exporter import Report, checked
from .artifacts import CALIBRATED, QUANTISED, Work, make_quantised
from .calibration import Calibration
from .recipes import RecipeFile


@dataclass(frozen=True)
class Raced:
    """What a race of recipes found. make: gives the artifacts that won, in `Work.made`. skipped: those that lost, with
    their figures. note: for the manifest's source.
    """

    make: Callable[[str, Work], Artifact]
    skipped: tuple[Skipped, ...]
    note: dict[str, Any]


def quantize_bundle(
    bundle: Bundle,
    target: Path,
    names: Sequence[str],
    calibrate: Callable[[], Calibration] | None,
    recipes: RecipeFile,
    command: str,
    report: Report,
    replace: bool = False,
    raced: Raced | None = None,
    known: Path | None = None,
) -> Bundle:
    """Writes `bundle` with the artifacts `names` (of `QUANTISED`) to `target`, which may be where it lies; opens it.

    calibrate: reads the images, for int8 that is not made already. replace: artifacts of these names that are there;
    one that fails leaves the earlier one as it was. raced: artifacts that are made already, and those that are not to
    be. An artifact that cannot be made or gives garbage is listed in `skipped`. InputError where none could be made;
    the bundle is as it was then. Other files in its folder stay in it. known: a folder that keeps ranges for further
    calls with the same images.
    """
    calibrated = calibrate is not None if raced is None else any(name in CALIBRATED for name in names)
    check_request(bundle, names, calibrated, replace)
    bundle.check()
    golden = bundle.golden()
    calibration = calibrate() if calibrate is not None else None
    in_place = check_target(bundle, target)
    with (
        atomic_folder(target, MANIFEST if in_place else None) as folder,
        tempfile.TemporaryDirectory(prefix="edgerecall-") as scratch,
    ):
        shutil.copytree(bundle.root, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        stored = None
        if calibration is not None:
            stored = Path(scratch) / "tensors.npy"
            np.save(stored, calibration.tensors)
        hashes = calibration.hashes if calibration is not None else ()
        work = Work(bundle, Path(scratch), recipes, stored, hashes, known=known)
        artifacts = {artifact.name: artifact for artifact in bundle.manifest.artifacts}
        skipped = {one.name: one for one in bundle.manifest.skipped}
        made: list[str] = []
        for name in names:
            try:
                artifact = (raced.make if raced else make_quantised)(name, work)
                alone = bundle.manifest.model_copy(update={"artifacts": (artifact,)})
                artifact = checked(artifact, Bundle(work.made, alone), *golden[1:])
                move_in(artifact, work.made, folder, artifacts.get(name))
            except (DiskFull, UnsoundModel):
                raise
            except EdgeRecallError as error:
                if name not in artifacts:
                    skipped[name] = Skipped(name=name, runtime=QUANTISED[name].runtime, reason=str(error))
                report(name, str(error))
                continue
            artifacts[name] = artifact
            skipped.pop(name, None)
            made.append(name)
            report(name, None, artifact.unchecked)
        for one in raced.skipped if raced else ():
            skipped[one.name] = one
            gone = artifacts.pop(one.name, None)
            for file in gone.files if gone is not None else ():
                (folder / file.path).unlink()
        if not made and raced is None:
            reason = skipped[names[-1]].reason if names[-1] in skipped else "see above"
            raise InputError(f"no artifact could be made: {names[-1]}: {reason}")
        told = bundle.manifest.source.get("quantised")
        commands = {**(told if isinstance(told, dict) else {}), **dict.fromkeys(made, command)}
        source = {
            **bundle.manifest.source,
            "quantised": {name: commands[name] for name in commands if name in artifacts},
        }
        source.pop("race", None)  # it is of the artifacts as they were
        if raced is not None:
            source["race"] = raced.note
        update = {"artifacts": tuple(artifacts.values()), "skipped": tuple(skipped.values()), "source": source}
        Bundle(folder, bundle.manifest.model_copy(update=update)).save()
        Bundle.open(folder).check()
    return Bundle.open(target)


def check_target(bundle: Bundle, target: Path) -> bool:
    """Whether the bundle is written in its own place; InputError where it cannot be written to `target`."""
    if target.resolve() == bundle.root.resolve():
        return True
    if bundle.root.resolve() in target.resolve().parents:
        raise InputError(f"--out {target}: expected a folder outside of the bundle {bundle.root}")
    if target.exists():
        refuse_to_replace(target, None)
    return False


def check_request(bundle: Bundle, names: Sequence[str], calibrated: bool, replace: bool) -> None:
    """InputError for what cannot be, before any image is read."""
    if bundle.manifest.format_version != FORMAT_VERSION:
        raise InputError(f"{bundle.root}: a bundle of an earlier format: run 'edgerecall upgrade {bundle.root}' first")
    there = {artifact.name for artifact in bundle.manifest.artifacts}
    if not replace and (both := [name for name in names if name in there]):
        raise InputError(f"{bundle.root} has {', '.join(both)} already: give --force to make it again")
    needing = [name for name in names if name in CALIBRATED]
    if needing and not calibrated:
        raise InputError(f"{', '.join(needing)}: int8 needs images to measure ranges on: give --calibrate")
    if calibrated and not needing:
        raise InputError(f"{', '.join(names)}: needs no images: leave out --calibrate")


def move_in(artifact: Artifact, made: Path, folder: Path, earlier: Artifact | None) -> None:
    """Moves an artifact's folder into the bundle's, in place of an earlier artifact. FormatFailed where something else
    lies there.
    """
    for file in earlier.files if earlier is not None else ():
        (folder / file.path).unlink(missing_ok=True)
    place = folder / artifact.name
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    if place.exists():
        raise FormatFailed(f"the bundle's folder has something else called {artifact.name}: move it away")
    shutil.move(made / artifact.name, place)
