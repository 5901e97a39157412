"""`edgerecall predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import command_line, console, progress_bar, setup_logging

OUTPUTS = ("text", "npy", "jsonl", "parquet")


@click.command()
@click.option("-c", "--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option("--format", "kind", type=click.Choice(OUTPUTS), default="text", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="File for npy, jsonl or parquet.")
@click.option("--boxes", type=click.Path(path_type=Path), help="With IndexProcess: what a detector found, JSON lines.")
@click.option("--strict", is_flag=True, help="End at the first bad image.")
def command(
    config_path: Path, overrides: tuple[str, ...], kind: str, output: Path | None, boxes: Path | None, strict: bool
) -> int:
    """Images to embeddings, predict_rec style: prints 'NAME:<tab>[ ... ]', or writes them to a file with --format.

    With a config that has IndexProcess, predict_system style: what each image shows, by the gallery in index_dir."""
    if kind == "text" and output is not None:
        raise click.UsageError(f"--output needs --format {', '.join(OUTPUTS[1:])}")
    from ..runtimes.core.config import apply_overrides, read_yaml, validate
    from ..runtimes.core.errors import ImageError, InputError
    from ..runtimes.embed.predict_config import RecConfig, binarize, ignored_preprocess, open_rec_model
    from ..runtimes.embed.writers import WRITERS, TextWriter, Writer
    from ..runtimes.preprocess.images import find_images, passed_over

    raw = apply_overrides(read_yaml(config_path), overrides)
    if "IndexProcess" in raw:
        if kind not in ("text", "jsonl") or output is not None:
            raise click.UsageError("a config with IndexProcess prints what images show, as text or jsonl")
        return tell_products(raw, f"config {config_path}", boxes, strict, kind == "jsonl")
    if kind != "text" and output is None:
        raise click.UsageError(f"--format {kind} needs --output FILE")
    if boxes is not None:
        raise click.UsageError("--boxes: the config has no IndexProcess to look up what is in them")
    config = validate(RecConfig, raw, f"config {config_path}")
    logger = setup_logging(console(stderr=True))
    if ignored := ignored_preprocess(config):
        logger.warning("%s", ignored)
    paths = find_images(config.Global.infer_imgs)
    if told := passed_over(config.Global.infer_imgs):
        logger.warning("%s", told)
    writer: Writer = TextWriter() if output is None else WRITERS[kind](output, command_line())
    writer.check(paths)
    bad: list[ImageError] = []

    def on_bad(path: Path, error: ImageError) -> None:
        bad.append(error)
        logger.warning("skipped: %s", error)

    with open_rec_model(config, len(paths)) as model, progress_bar("embedding", len(paths)) as advance:
        for good, embeddings in model.stream(paths, None if strict else on_bad):
            post = config.RecPostProcess
            values = binarize(embeddings, post.Binarize.method) if post else embeddings
            writer.add(good, values)
            advance(len(good))
    if len(bad) == len(paths):
        raise InputError(f"none of the {len(paths)} images could be read")
    writer.finish()
    if output is not None:
        console().print(f"{output}: {len(paths) - len(bad)} embeddings, {len(bad)} images skipped{writer.names_note}")
    return 0


def tell_products(raw: dict[str, Any], name: str, boxes: Path | None, strict: bool, named: bool) -> int:
    """`predict_system`: a line for each image, `[{"bbox": ..., "rec_docs": ..., "rec_scores": ...}]`; named: with it,
    `{"image": ..., "products": [...]}`.
    """
    import json

    from ..runtimes.core.config import validate
    from ..runtimes.core.errors import ImageError, InputError
    from ..runtimes.embed.predict_config import ignored_preprocess
    from ..runtimes.embed.shitu import FindBoxes, answers, boxes_of, boxes_told, no_boxes, opened_detector, read_boxes
    from ..runtimes.embed.shitu_config import ShituConfig
    from ..runtimes.preprocess.images import find_images

    config = validate(ShituConfig, raw, name)
    logger = setup_logging(console(stderr=True))
    if ignored := ignored_preprocess(config):
        logger.warning("%s", ignored)
    paths = find_images(config.Global.infer_imgs)
    bad = 0

    def on_bad(path: Path, error: ImageError) -> None:
        nonlocal bad
        bad += 1
        logger.warning("skipped: %s", error)

    find: FindBoxes = no_boxes
    if boxes is not None:
        find = boxes_told(read_boxes(boxes), paths)
    elif (detector := opened_detector(config, name)) is not None:
        find = boxes_of(detector)
    elif config.Global.det_inference_model_dir is not None:
        place = config.Global.det_inference_model_dir
        logger.warning("whole images are looked up: there is no detector in %s; or give boxes with --boxes", place)
    for path, products in answers(config, paths, find, None if strict else on_bad):
        told = {"image": str(path), "products": products} if named else products
        click.echo(json.dumps(told, ensure_ascii=False))
    if bad == len(paths):
        raise InputError(f"none of the {len(paths)} images could be read")
    return 0
