"""From a race to a bundle: the artifacts that won, byte for byte, and why the others were left out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact, Skipped
from ..exporter import Report
from ..quantize.artifacts import QUANTISED, Work
from ..quantize.quantizer import Raced, quantize_bundle
from .entries import Choice, Entry, choose
from .race import Race


def choices(race: Race) -> list[Choice]:
    """For each artifact that may be made."""
    return [
        choose(name, QUANTISED[name].runtime, race.entries, race.options.gates.drops) for name in race.options.names
    ]


def ship(
    race: Race, chosen: Sequence[Choice], target: Path, report: Report, note: dict[str, Any], replace: bool
) -> Bundle:
    """Writes the race's bundle to `target` with the artifacts that were chosen, and what was not in `skipped`."""
    won = {choice.artifact: choice.entry for choice in chosen if choice.entry is not None}
    there = {artifact.name for artifact in race.bundle.manifest.artifacts}
    lost = tuple(
        Skipped(name=choice.artifact, runtime=QUANTISED[choice.artifact].runtime, reason=choice.sentence)
        for choice in chosen
        if choice.entry is None and (choice.ran or choice.artifact not in there)  # what did not run says nothing
    )

    def make(name: str, work: Work) -> Artifact:
        return raced_artifact(race.folder, won[name], work.made)

    return quantize_bundle(
        race.bundle,
        target,
        list(won),
        None,
        race.options.recipes,
        race.command,
        report,
        replace,
        Raced(make, lost, note),
    )


def raced_artifact(folder: Path, winner: Entry, made: Path) -> Artifact:
    """The artifact of an entry, its hashed files copied to `made`."""
    assert winner.folder is not None and winner.artifact is not None
    bundle = Bundle.open(folder / winner.folder)
    artifact = next(one for one in bundle.manifest.artifacts if one.name == winner.artifact)
    bundle.check(artifact.files)
    for file in artifact.files:
        (made / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.root / file.path, made / file.path)
    return artifact
