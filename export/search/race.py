"""The race: heats of recipes, each made, timed and scored beside the float32 artifacts in one interleaved run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ...bench.diagnose.int8_loss import READERS
from ...bench.diagnose.quantised_layers import ranked
from ...bench.measure.image_set import ImageSet
from ...bench.measure.runner import run_bench
from ...bench.schema.gates import Gates
from ...bench.schema.options import BenchOptions
from ...bench.schema.rows import BenchResult
from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import InputError
from ...runtimes.core.files import atomic_folder, write_text
from ...runtimes.predictor.registry import backend
from ..context import DiskFull
from ..quantize.artifacts import CALIBRATED, QUANTISED
from ..quantize.calibration import Calibration
from ..quantize.quantizer import quantize_bundle
from ..quantize.recipes import Int8Recipe, RecipeFile
from .entries import AS_IS, Entry, entry, surely, within

SAMPLES, ROUNDS, SECONDS = 100, 10, 10.0
SENSITIVE_IMAGES = 16  # of the calibration's, that layers are ranked by
SHARES = (0.1, 0.25)  # of the heavy layers, the most sensitive, that are left in float
AS_GIVEN = "as given"
QDQ_FROM, QDQ_ARTIFACT = "onnxruntime", "onnx-int8"
LOOKED_INTO = {"qdq": QDQ_FROM, "ncnn": "ncnn"}  # whose artifacts of a scheme are read layer by layer
NEEDED = (AS_IS, AS_GIVEN)  # whatever time there is
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class RaceOptions:
    """names: artifacts that may be made, of `QUANTISED`. recipes: those that the others vary. minutes: after which no
    variant of them begins; None for no limit.
    """

    names: tuple[str, ...]
    recipes: RecipeFile
    gates: Gates
    threads: int = 1
    minutes: float | None = None


class Race:
    """One race. folder: keeps each heat's bundle and entries, so that an interrupted race goes on. progress(what, share
    of the heats planned).
    """

    def __init__(
        self,
        bundle: Bundle,
        calibration: Calibration | None,
        images: ImageSet,
        options: RaceOptions,
        folder: Path,
        command: str,
        progress: Progress,
    ) -> None:
        self.bundle, self.calibration, self.images = bundle, calibration, images
        self.options, self.folder, self.command, self.progress = options, folder, command, progress
        self.int8 = [name for name in options.names if name in CALIBRATED]
        self.entries: list[Entry] = []
        self.raced: set[tuple[str, Int8Recipe]] = set()  # for which artifact
        self.left: list[str] = []  # heats that there was no time for
        self.done, self.planned, self.title = 0, 2 + (6 + len(SHARES) if self.int8 else 0), AS_IS
        self.begun = time.monotonic()

    def run(self) -> list[Entry]:
        """All heats."""
        plain = self.folder / "float"
        runtimes = {QUANTISED[name].runtime for name in self.options.names}
        if not plain.is_dir():
            # QDQ starts from ONNX, whichever runtime it is for.
            copy_float(self.bundle, plain, runtimes | ({QDQ_FROM} if self.int8 else set()))
        self.plain = Bundle.open(plain)
        self.runtimes = tuple(name for name in self.plain.runtimes() if name in runtimes)
        self._heat(AS_IS, self._as_is)
        halves = [name for name in self.options.names if name not in CALIBRATED]
        if halves:
            self._heat("fp16 weights", lambda: self._made("fp16 weights", dict.fromkeys(halves)))
        if self.int8:
            self._int8()
        return self.entries

    def _int8(self) -> None:
        own = {name: self.options.recipes.of(name) for name in self.int8}
        self._recipe(AS_GIVEN, own)
        bases = base_recipes(own)
        if qdq := bases.get("qdq"):
            other = "int8" if qdq.activations == "uint8" else "uint8"
            self._recipe(f"{other} activations", self._everywhere({"qdq": varied(qdq, activations=other)}))
        for calibration in ("minmax", "percentile"):
            changed = {
                scheme: varied(base, calibration=calibration)
                for scheme, base in bases.items()
                if (base.calibration == "minmax") != (calibration == "minmax")
            }
            self._recipe(calibration, self._everywhere(changed))
        if qdq and "openvino-int8" in self.int8:
            self._recipe("nncf", {"openvino-int8": varied(qdq, scheme="nncf")})
        best = {scheme: self._best(scheme, base) for scheme, base in bases.items()}
        for title, words in (("first and last", ("first", "last")), ("depthwise", ("depthwise",))):
            kept = {scheme: keeping(recipe, words) for scheme, recipe in best.items()}
            self._recipe(f"{title} in float", self._everywhere(kept))
        for share in SHARES:
            names = {scheme: self._sensitive(scheme, recipe, share) for scheme, recipe in best.items()}
            kept = {scheme: keeping(self._basis(best[scheme]), own) for scheme, own in names.items() if own}
            self._recipe(f"{share:.0%} most sensitive in float".replace("%", " %"), self._everywhere(kept))

    def _basis(self, best: Int8Recipe) -> Int8Recipe:
        """What further layers in float are added to: the recipe with depthwise ones so, where it is surely faster in
        each runtime and keeps the limits on these images.
        """
        depthwise = keeping(best, ("depthwise",))
        before, after = (
            {one.runtime: one for one in self.entries if one.recipe == recipe.text() and one.standing != "none"}
            for recipe in (best, depthwise)
        )
        drops = self.options.gates.drops
        gains = [
            surely(one) > before[name].times and within(one, drops) for name, one in after.items() if name in before
        ]
        return depthwise if gains and all(gains) else best

    def _everywhere(self, recipes: dict[str, Int8Recipe]) -> dict[str, Int8Recipe | None]:
        """recipes: by scheme."""
        return {name: recipes.get(scheme_of(name)) for name in self.int8}

    def _recipe(self, title: str, recipes: dict[str, Int8Recipe | None]) -> None:
        new = {name: one for name, one in recipes.items() if one is not None and (name, one) not in self.raced}
        if new and self._heat(title, lambda: self._made(title, dict(new))):
            self.raced |= set(new.items())

    def _best(self, scheme: str, base: Int8Recipe) -> Int8Recipe:
        """Of a scheme's recipes so far the one whose worst loss, averaged over runtimes, is least."""

        def loss(recipe: Int8Recipe) -> float:
            own = [one.worst for one in self.entries if one.recipe == recipe.text() and one.standing != "none"]
            return sum(own) / len(own) if own else -2.0

        tried = dict.fromkeys(
            one for _, one in sorted(self.raced, key=lambda pair: pair[1].text()) if one.scheme == scheme
        )
        return max(tried, key=loss, default=base)

    def _sensitive(self, scheme: str, recipe: Int8Recipe, share: float) -> list[str]:
        """The layers to keep in float: those that bring the embeddings nearest to the float model's."""
        runtime = LOOKED_INTO[scheme]
        made = next((one.folder for one in self.entries if one.recipe == recipe.text() and one.folder), None)
        path = self.folder / f"sensitivity-{scheme}.json"
        if made is None or (not path.is_file() and self._late("most sensitive in float")):
            return []
        if not path.is_file():
            models = [
                model_file(Bundle.open(folder), runtime, quantisation)
                for folder, quantisation in ((self.folder / "float", "fp32"), (self.folder / made, "int8"))
            ]
            layers = READERS[runtime].read(*models)
            tensors = self._calibrated().tensors
            tensors = tensors[:: max(len(tensors) // SENSITIVE_IMAGES, 1)]
            left = iter(range(len(layers.kinds)))
            told = lambda: self._tell(f"layer {next(left) + 1} of {len(layers.kinds)} in float")  # noqa: E731
            _, losses = layers.losses(tensors[:SENSITIVE_IMAGES], told)
            write_text(path, json.dumps([asdict(one) for one in ranked(losses)], indent=1))
        found = json.loads(path.read_text(encoding="utf-8"))
        return [one["name"] for one in found[: max(round(share * len(found)), 1)]]

    def _as_is(self) -> list[Entry]:
        """The float32 artifacts, and each runtime when it is asked to compute in less."""
        result = self._bench(self.plain, BenchOptions(runtimes=self.runtimes, quantisation=("fp32",)))
        found = [entry(AS_IS, row, row) for row in result.rows]
        for runtime in self.runtimes:
            for precision in backend(runtime).executions[1:]:
                result = self._bench(self.plain, BenchOptions((runtime,), ("fp32",), precision=("fp32", precision)))
                plain, row = result.rows
                found.append(entry(f"float32, asked to compute in {precision}", row, plain))
        return found

    def _made(self, title: str, recipes: dict[str, Int8Recipe | None]) -> list[Entry]:
        """Makes the artifacts and benches those that could be made."""
        folder = slug(title)
        shutil.rmtree(self.folder / folder, ignore_errors=True)
        found: list[Entry] = []

        def report(name: str, problem: str | None, unchecked: str | None = None) -> None:
            if problem is not None and name in recipes:
                asked = QUANTISED[name]
                lowered = asked.quantisation
                found.append(Entry(title, asked.runtime, name, status="failed", reason=problem, quantisation=lowered))

        given = {name: one for name, one in recipes.items() if one is not None}
        if any(one.scheme == "qdq" for one in given.values()) and QDQ_ARTIFACT not in given:
            # Its layers can be looked at.
            given[QDQ_ARTIFACT] = next(one for one in given.values() if one.scheme == "qdq")
        try:
            made = quantize_bundle(
                self.plain,
                self.folder / folder,
                list(given or recipes),
                self._calibrated if given else None,
                RecipeFile.model_validate(given),
                self.command,
                report,
                known=self.folder,
            )
        except DiskFull:
            raise
        except InputError:
            if not found:
                raise
            return found  # which say why none could be made
        names = {artifact.name for artifact in made.manifest.artifacts} & recipes.keys()
        if not names:
            return found
        runtimes = tuple(dict.fromkeys(QUANTISED[name].runtime for name in recipes if name in names))
        lowered = QUANTISED[next(iter(names))].quantisation
        result = self._bench(made, BenchOptions(runtimes, ("fp32", lowered)))
        for row in result.rows:
            if row.quantisation != "fp32":
                plain = next(one for one in result.rows if one.runtime == row.runtime and one.quantisation == "fp32")
                name = next(one for one in names if QUANTISED[one].runtime == row.runtime)
                found.append(entry(title, row, plain, name, folder))
        return found

    def _calibrated(self) -> Calibration:
        assert self.calibration is not None
        return self.calibration

    def _bench(self, bundle: Bundle, options: BenchOptions) -> BenchResult:
        options = replace(
            options,
            threads=(self.options.threads,),
            samples=SAMPLES,
            rounds=ROUNDS,
            seconds=SECONDS,
            gates=self.options.gates,
        )
        result = run_bench(bundle, self.images, options, self.command, self._tell)
        if result.problem is not None:
            raise InputError(f"the race cannot be judged: {result.problem}")
        return result

    def _tell(self, what: str, share: float = 0.0) -> None:
        self.progress(f"{self.title}: {what}", min((self.done + share) / self.planned, 1.0))

    def _late(self, title: str) -> bool:
        minutes = self.options.minutes
        late = minutes is not None and time.monotonic() - self.begun > 60 * minutes
        if late and title not in self.left:
            self.left.append(title)
        return late

    def _heat(self, title: str, make: Callable[[], list[Entry]]) -> bool:
        """One heat, from what was kept of it where it was done before. False where there is no time for it."""
        path = self.folder / f"{slug(title)}.json"
        self.title = title
        found: list[Entry]
        if path.is_file():
            try:
                found = TypeAdapter(list[Entry]).validate_json(path.read_bytes())
            except ValidationError as error:
                raise InputError(f"{path}: damaged; remove {self.folder} and run again") from error
        elif title not in NEEDED and self._late(title):
            return False
        else:
            self._tell("making")
            found = make()
            write_text(path, json.dumps([asdict(one) for one in found], indent=1))
        self.done += 1
        self.entries += found
        self._tell("done")
        return True


def require_float(bundle: Bundle, options: RaceOptions) -> None:
    """InputError where the bundle has no float32 artifact of a runtime to race in."""
    there = {one.runtime for one in bundle.manifest.artifacts if one.quantisation == "fp32"}
    for name in options.names:
        if QUANTISED[name].runtime not in there:
            raise InputError(
                f"{name}: {bundle.root} has no float32 artifact of {QUANTISED[name].runtime} to race beside: leave it"
                " out of --artifacts, or export that format"
            )


def slug(title: str) -> str:
    """A title as a file's name."""
    return "-".join(title.lower().split())


def varied(recipe: Int8Recipe, **changes: object) -> Int8Recipe:
    """The recipe with other values; of those that the result does not take, none are kept."""
    given = {name: getattr(recipe, name) for name in recipe.model_fields_set} | changes
    if given.get("scheme") == "nncf":
        given = {name: given[name] for name in ("scheme", "keep") if name in given}
    if given.get("scheme") == "ncnn":
        given.pop("activations", None)
    if given.get("calibration", "percentile") != "percentile":
        given.pop("percentile", None)
    return Int8Recipe.model_validate(given)


def keeping(recipe: Int8Recipe, names: Sequence[str]) -> Int8Recipe:
    """The recipe with these layers in float too."""
    return varied(recipe, keep=tuple(dict.fromkeys((*recipe.keep, *names))))


def scheme_of(name: str) -> str:
    """That is raced for an artifact, beside NNCF's."""
    return "ncnn" if QUANTISED[name].runtime == "ncnn" else "qdq"


def base_recipes(own: dict[str, Int8Recipe | None]) -> dict[str, Int8Recipe]:
    """What to vary, by scheme: an artifact's own recipe where it is of that scheme."""
    found: dict[str, Int8Recipe] = {}
    for scheme in dict.fromkeys(map(scheme_of, own)):
        given = (recipe for recipe in own.values() if recipe is not None and recipe.scheme == scheme)
        found[scheme] = next(given, Int8Recipe.model_validate({"scheme": scheme}))
    return found


def model_file(bundle: Bundle, runtime: str, quantisation: str) -> Path:
    """The model of this quantisation, hashed."""
    return Path(bundle.files(bundle.artifact(runtime, quantisation=quantisation))["model"])


def copy_float(bundle: Bundle, target: Path, runtimes: set[str]) -> None:
    """A bundle with the float32 artifacts of these runtimes alone."""
    kept = tuple(one for one in bundle.manifest.artifacts if one.quantisation == "fp32" and one.runtime in runtimes)
    with atomic_folder(target) as folder:
        for file in (*bundle.manifest.golden, *(file for one in kept for file in one.files)):
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / file.path, folder / file.path)
        Bundle(folder, bundle.manifest.model_copy(update={"artifacts": kept, "skipped": ()})).save()
