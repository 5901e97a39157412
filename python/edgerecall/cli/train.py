"""`edgerecall train`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from .console import command_line, console, progress_bar, setup_logging


@click.command()
@click.option("-c", "--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
def command(config_path: Path, overrides: tuple[str, ...]) -> None:
    """Train an embedding with cross-batch memory (XBM) on PaddlePaddle."""
    from ..runtimes.files import write_text
    from ..runtimes.versions import installed_versions
    from ..train.config import load_config

    config = load_config(config_path, overrides)
    from ..train.trainer import StepReport, Trainer

    settings = config.Global
    target = console()
    trainer = Trainer(config)
    logger = setup_logging(target, settings.output_dir / "train.log")
    logger.info("command: %s", command_line())
    logger.info("versions: %s", json.dumps(installed_versions()))
    labels = trainer.images.labels
    logger.info("training on %d images of %d classes, seed %d", len(labels), len(set(labels.tolist())), settings.seed)
    write_text(settings.output_dir / "config.json", config.model_dump_json(indent=2, exclude_unset=True) + "\n")
    total = settings.epochs * settings.iter_per_epoch
    with progress_bar("training", total, target) as advance:

        def on_step(report: StepReport) -> None:
            advance(1)
            if report.step == 1 or report.step % settings.print_batch_step == 0 or report.step == total:
                logger.info("%s", report.line())

        scores = trainer.run(on_step, lambda epoch, scores: logger.info("%s", scores.line(epoch)))
    logger.info("saved to %s: latest%s", settings.output_dir, ", best_model" if scores else "")
    logging.shutdown()
