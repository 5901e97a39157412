"""`edgerecall export`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from ..export.sources import FORMS
from .console import command_line, console, progress_bar, setup_logging, tell_passed_over


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "-c", "--config", "config_path", type=click.Path(path_type=Path), help="Training config, with --checkpoint."
)
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value of it.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="NAME or NAME.pdparams of a training run.")
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    help="FILE.onnx, FILE.tflite, FILE.param (ncnn), or folder of a Paddle inference model.",
)
@click.option("--output", metavar="NAME", help="The ONNX model's tensor that is the embedding; default: its output.")
@click.option(
    "--preprocess",
    "preprocessing",
    metavar="NAME|FILE",
    help="With --model: imagenet, clip, timm:MODEL, a YAML with RecPreProcess, or a printed torchvision transform.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Golden images; default: the config's evaluation list.")
@click.option("--golden", default=8, show_default=True, type=click.IntRange(1, 64), help="How many golden images.")
@click.option(
    "--formats", default="all", show_default=True, help="Comma list; all: what the model can be, but ncnn and tnn."
)
@click.option("--quantize", "lower", default="", help="Artifacts of lower precision too: comma list of int8, fp16.")
@click.option(
    "--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="Training images, for int8; as of 'quantize'."
)
@click.option("--calibrate-count", default=300, show_default=True, type=click.IntRange(32, 1000))
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
def command(
    bundle: Path | None,
    config_path: Path | None,
    overrides: tuple[str, ...],
    checkpoint: Path | None,
    model_path: Path | None,
    output: str | None,
    preprocessing: str | None,
    images: Path | None,
    golden: int,
    formats: str,
    lower: str,
    calibrate: Path | None,
    calibrate_count: int,
    force: bool,
) -> int:
    """Export to the folder BUNDLE: a checkpoint (-c CONFIG --checkpoint NAME), or a model in ONNX, TFLite's,
    ncnn's or Paddle's format (--model FILE|FOLDER --preprocess NAME|FILE --images DIR).

    Without BUNDLE and --checkpoint they are the config's Global.save_inference_dir and Global.pretrained_model."""
    if (config_path is None) == (model_path is None):
        raise click.UsageError("expected either -c with --checkpoint, or --model with --preprocess and --images")
    if model_path is not None and checkpoint is not None:
        raise click.UsageError("--checkpoint needs -c CONFIG, which says how to build its network")
    if model_path is not None and (bundle is None or preprocessing is None or images is None):
        raise click.UsageError("--model needs BUNDLE, --preprocess NAME or FILE, and --images DIR")
    if model_path is None and not preprocessing is output is None:
        raise click.UsageError("--preprocess and --output are for --model: a config says both")
    form = FORMS.get(model_path.suffix.lower(), "paddle") if model_path is not None else "paddle"
    if output is not None and form != "onnx":
        raise click.UsageError("--output is for a --model in ONNX")
    from ..export.exporter import FORMATS, all_formats, export_bundle
    from ..runtimes.bundle.manifest import MANIFEST
    from ..runtimes.core.config import require_known
    from ..runtimes.core.files import refuse_to_replace
    from ..runtimes.preprocess.images import find_images

    every = all_formats(form)
    named = [name.strip() for name in formats.split(",")]
    names = list(dict.fromkeys(name for part in named for name in (every if part == "all" else (part,))))
    for name in names:
        require_known(name, FORMATS, "--formats")
    lowered = check_lower(lower, calibrate)
    config: Any = None
    if config_path is not None:
        from ..train.config.training import load_config

        config = load_config(config_path, overrides)
        bundle = bundle or config.Global.save_inference_dir
        if checkpoint is None and config.Global.pretrained_model is None:
            raise click.UsageError("expected --checkpoint NAME, or Global.pretrained_model in the config")
    assert bundle is not None
    if bundle.exists():
        refuse_to_replace(bundle, MANIFEST if force else None, "give another name or --force")
    logger = setup_logging(console(stderr=True))
    with (
        tempfile.TemporaryDirectory(prefix="edgerecall-") as scratch,
        progress_bar("exporting", len(names) + 2) as advance,
    ):

        def step(title: str) -> None:
            logger.info("%s", title)
            advance(1)

        if images is not None:
            tell_passed_over(images)
        source: Any
        if config is not None:
            from ..export.sources.paddle_source import from_checkpoint
            from ..train.evaluate import read_list
            from ..train.state.checkpoint import weights_path

            if checkpoint is None:
                logger.warning("no --checkpoint: exporting Global.pretrained_model %s", config.Global.pretrained_model)
            weights = weights_path(checkpoint or config.Global.pretrained_model)
            listed = None if images else read_list(config.DataLoader.Eval.Gallery.dataset)
            source = from_checkpoint(config, weights, Path(scratch), step)
            files = find_images(images) if images else [listed.file(i) for i in spread(len(listed))] if listed else []
        else:
            assert model_path is not None and preprocessing is not None and images is not None
            files = find_images(images)
            source = from_outside(model_path, preprocessing, output, Path(scratch), form)

        failures = []

        def report(name: str, problem: str | None, unchecked: str | None = None) -> None:
            if problem:
                logger.warning("%s: left out: %s", name, problem)
            elif unchecked:
                logger.info("%s: made, unchecked: %s", name, unchecked)
            else:
                logger.info("%s: made, matches the reference", name)
            failures.extend([name] if problem and name in FORMATS else [])
            advance(1)

        made = export_bundle(bundle, source, files, names, command_line(), report, golden, force)
    size = sum(artifact.size_bytes for artifact in made.manifest.artifacts) / 1e6
    artifacts = made.manifest.artifacts
    unchecked = sum(artifact.check is None for artifact in artifacts)
    aside = f" ({unchecked} unchecked)" if unchecked else ""
    console().print(f"{bundle}: {len(artifacts)} artifacts{aside}, {size:.1f} MB, {made.spec.embedding_dim}-d")
    failed = bool(set(failures) & set(named))
    if lowered:
        failed = bool(add_lower(made, lowered, calibrate, calibrate_count, logger)) or failed
    return int(failed)


def from_outside(model: Path, preprocessing: str, output: str | None, scratch: Path, form: str) -> Any:
    """A user's own model as a source."""
    from ..runtimes.preprocess.presets import find_preprocess

    preprocess = find_preprocess(preprocessing)
    if form == "onnx":
        from ..export.sources.onnx_source import from_onnx

        return from_onnx(model, preprocess, scratch, output)
    if form != "paddle":
        from ..export.sources.own_source import from_own

        return from_own(model, preprocess)
    from ..export.sources.paddle_source import from_model

    return from_model(model, preprocess)


def check_lower(text: str, calibrate: Path | None) -> list[str]:
    """The quantisations asked for. InputError for what cannot be, before anything is exported."""
    from ..export.quantize.calibration import calibration_files
    from ..runtimes.core.config import require_known
    from ..runtimes.core.errors import InputError

    names = list(dict.fromkeys(name.strip() for name in text.split(","))) if text else []
    for name in names:
        require_known(name, ("int8", "fp16"), "--quantize")
    if ("int8" in names) != (calibrate is not None):
        raise InputError("--quantize int8 and --calibrate DIR, its images, go together: give both")
    if calibrate is not None:
        calibration_files(calibrate, None)
    return names


def add_lower(bundle: Any, lowered: list[str], calibrate: Path | None, count: int, logger: Any) -> int:
    """Adds artifacts of lower precision to a bundle just made, of each format that it has; the exit code."""
    from ..export.quantize.artifacts import QUANTISED
    from ..export.quantize.recipes import load_recipes
    from ..runtimes.core.errors import InputError
    from .quantize import Job, quantize, reader

    there = {artifact.runtime for artifact in bundle.manifest.artifacts}
    names = [name for name, one in QUANTISED.items() if one.quantisation in lowered and one.runtime in there]
    if not names:
        logger.warning("--quantize: neither ONNX nor OpenVINO is in the bundle: nothing to quantise")
        return 1
    images = reader(bundle, calibrate, None, count, logger) if calibrate is not None else None
    try:
        return quantize(Job(bundle, bundle.root, names, images, load_recipes(None), False), logger)
    except InputError as error:
        logger.error("%s: exported, and not quantised: %s", bundle.root, error)
        return 1


def spread(count: int) -> list[int]:
    """List indices in an order that covers the whole list early, so that golden images are of many classes."""
    step = max(count // 64, 1)
    return [index for offset in range(step) for index in range(offset, count, step)]
