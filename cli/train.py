"""`edgerecall train`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import command_line, console, progress_bar, setup_logging

if TYPE_CHECKING:
    from ..train.report.recorder import Scores


@click.command()
@click.option("-c", "--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option("--resume", is_flag=True, help="Go on from output_dir/latest, if there is one.")
def command(config_path: Path, overrides: tuple[str, ...], resume: bool) -> None:
    """Train an embedding with cross-batch memory (XBM) on PaddlePaddle.

    Ctrl-C saves `latest` first; --resume goes on from it. Several GPUs: start it by
    `python -m paddle.distributed.launch --devices 0,1 .venv/bin/edgerecall train ...`.
    """
    from ..runtimes.core.files import write_text
    from ..runtimes.predictor.registry import tool_versions
    from ..train.config.training import load_config

    config = load_config(config_path, overrides)
    from ..train.report.recorder import StepReport
    from ..train.report.train_report import write_report
    from ..train.setup import tell
    from ..train.trainer import Trainer

    target = console()
    setup_logging(target)
    trainer = Trainer(config, resume)
    config, settings = trainer.config, trainer.config.Global
    # Only a training that starts touches the log.
    logger = setup_logging(target, settings.output_dir / "train.log", quiet=not trainer.is_main)
    logger.info("command: %s", command_line())
    logger.info("versions: %s", json.dumps(tool_versions()))
    logger.info("%s", trainer.summary())
    if trainer.taken is not None and not trainer.progress.step:
        tell(trainer.taken)
    if trainer.is_main:
        write_text(settings.output_dir / "config.json", config.model_dump_json(indent=2, exclude_unset=True) + "\n")
    with progress_bar("training", settings.iterations, target) as advance:
        advance(trainer.progress.step)

        def on_step(report: StepReport) -> None:
            advance(1)
            if trainer.shown(report):
                logger.info("%s", report.line())

        def on_eval(epoch: int, scores: Scores) -> None:
            logger.info("%s", scores.line(epoch, config.Metric.topk))

        scores = trainer.run(on_step, on_eval)
    if trainer.is_main:
        page = write_report(settings.output_dir, config, command_line())
        logger.info("saved to %s: latest%s, %s", settings.output_dir, ", best_model" if scores else "", page.name)
    logging.shutdown()
