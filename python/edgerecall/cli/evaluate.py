"""`edgerecall eval`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console, progress_bar, setup_logging


@click.command()
@click.option("-c", "--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML config.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="NAME or NAME.pdparams; default: Global.pretrained_model, else the untrained network.",
)
def command(config_path: Path, overrides: tuple[str, ...], checkpoint: Path | None) -> None:
    """recall@k and mAP of a checkpoint."""
    from ..train.config import load_config

    config = load_config(config_path, overrides)
    from ..train.evaluate import evaluate
    from ..train.setup import build_network, set_device

    logger = setup_logging(console(stderr=True))
    set_device(config.Global.device)
    network = build_network(config, checkpoint)
    if checkpoint is None and config.Global.pretrained_model is None:
        logger.warning("no --checkpoint and no Global.pretrained_model: this is the untrained network")
    with progress_bar("embedding", None) as advance:
        scores = evaluate(config, network.state_dict(), advance)
    console().print(scores.line(0), soft_wrap=True, markup=False)
