"""`edgerecall eval`."""

from __future__ import annotations

from pathlib import Path

import click

from ..runtimes.core.errors import InputError
from .console import command_line, console, progress_bar, setup_logging


@click.command()
@click.option("-c", "--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="NAME or NAME.pdparams; default: Global.pretrained_model, else the untrained network.",
)
@click.option(
    "--failures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a page, a contact sheet and a table of them.",
)
@click.option(
    "--worst", type=click.IntRange(1), default=30, show_default=True, help="How many queries --failures shows."
)
def command(
    config_path: Path, overrides: tuple[str, ...], checkpoint: Path | None, failures: Path | None, worst: int
) -> None:
    """recall@k, mAP, R-precision and mAP@R of a checkpoint; a classifier's accuracy where Global.eval_mode says so."""
    from ..bench.retrieval.failure_report import PAGE_NAME, write_failures
    from ..bench.retrieval.failures import class_scores, worst_queries
    from ..bench.retrieval.label_sense import label_warnings
    from ..bench.retrieval.metrics import retrieval_scores
    from ..runtimes.core.files import refuse_to_replace
    from ..train.config.training import load_config

    config = load_config(config_path, overrides)
    classifies = config.Global.eval_mode == "classification"
    if classifies and failures is not None:
        raise InputError("--failures shows queries: for Global.eval_mode: retrieval")
    if failures is not None and failures.exists():
        refuse_to_replace(failures, PAGE_NAME)
    from ..train.classify import classify
    from ..train.evaluate import arguments_of, encode_sets, score
    from ..train.setup import build_network, load_head, set_device

    logger = setup_logging(console(stderr=True))
    set_device(config.Global.device)
    network = build_network(config, checkpoint)
    if checkpoint is None and config.Global.pretrained_model is None:
        what = "the backbone's pretrained weights alone" if config.Arch.Backbone.pretrained else "the untrained network"
        logger.warning("no --checkpoint and no Global.pretrained_model: this is %s", what)
    target = console()
    if classifies:
        head = load_head(config, checkpoint)
        with progress_bar("classifying", None) as advance:
            accuracy = classify(config, network.state_dict(), head, advance)
        target.print(accuracy.line(0), soft_wrap=True, markup=False)
        return
    with progress_bar("embedding", None) as advance:
        gallery, queries = encode_sets(config, network.state_dict(), advance)
    scores = score(config, gallery, queries)
    rows = queries or gallery
    if failures is not None:
        plain = scores
        if config.Global.re_ranking:
            plain = retrieval_scores(**arguments_of(gallery, queries), ks=tuple(scores.recall))
        separate = gallery.embeddings if queries else None
        found = worst_queries(plain, rows.embeddings, rows.images, separate, gallery.images, worst)
        classes = class_scores(rows.images, plain)
        page = write_failures(failures, plain, classes, found, rows.images, gallery.images, command_line())
        logger.info("failures: %s", page)
    if queries is None:
        files = [Path(path) for path in gallery.images.paths]
        for warning in label_warnings(files, gallery.images.labels, gallery.embeddings):
            logger.warning("%s", warning)
    target.print(", ".join(f"{name}: {value:.5f}" for name, value in scores.named.items()), soft_wrap=True)
    target.print(scores.line(0, config.Metric.topk), soft_wrap=True, markup=False)
