"""`edgerecall serve`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from ..console import console, setup_logging

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--gallery", type=PATH, help="Answer with its nearest rows too.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: every address of this machine.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--name", help="Of the model in URLs; by default BUNDLE's folder.")
@click.option("--runtime", default="onnxruntime", show_default=True, help="What computes the embeddings.")
@click.option("--quantisation", help="Of the artifact to take: fp32, fp16 or int8; by default fp32.")
@click.option("--replicas", type=click.IntRange(1, 256), help="Inferences at a time; by default one for each CPU.")
@click.option(
    "--max-batch",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Images of an inference, taken from what waits. More than 1: other last digits, and no faster on most CPUs.",
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 10_000), help="Rows, unless asked for k.")
@click.option("--queue", default=256, show_default=True, type=click.IntRange(1, 100_000), help="Images that may wait.")
@click.option("--images", default=64, show_default=True, type=click.IntRange(1, 10_000), help="Of a request, at most.")
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(0.001, 3600), help="For a request.")
@click.option("--max-body", default=32, show_default=True, type=click.IntRange(1, 2048), help="MiB of a request.")
@click.option(
    "--connections", default=512, show_default=True, type=click.IntRange(1, 100_000), help="At the same time."
)
@click.option("--token-file", type=PATH, help="Embed only for who brings this file's token ('Authorization: Bearer').")
@click.option(
    "--canary-seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Between two looks at the golden images.",
)
@click.option("--certificate", type=PATH, help="PEM file, for TLS.")
@click.option("--key", type=PATH, help="Its key.")
def command(bundle: Path, gallery: Path | None, **given: Any) -> int:
    """Serve BUNDLE by the Open Inference Protocol: images in, embeddings or neighbours out."""
    from importlib.metadata import version

    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.core.cpus import usable_cpus
    from ...runtimes.core.errors import InputError, RuntimeFailed
    from ...runtimes.embed.model import load
    from ...runtimes.gallery.gallery import Gallery
    from ...serve.app import Server, Settings
    from ...serve.server import Listen, check_tls, serve
    from ...serve.service import Limits, Service

    opened = Bundle.open(bundle)
    name = given["name"] or bundle.resolve().name
    if not name or "/" in name:
        raise InputError(f"--name: expected a text without '/', got {name!r:.80}")
    listen = Listen(given["host"], given["port"], given["certificate"], given["key"], given["connections"])
    check_tls(listen)
    token = None if given["token_file"] is None else read_token(given["token_file"])
    found = None if gallery is None else Gallery.open(gallery, model=opened)
    quantisation = opened.artifact(given["runtime"], quantisation=given["quantisation"]).quantisation
    model = load(
        bundle,
        given["runtime"],
        replicas=given["replicas"] or len(usable_cpus()),
        batch_size=given["max_batch"],
        quantisation=quantisation,
    )
    limits = Limits(given["queue"], given["images"], given["seconds"], given["top"])
    with model, contextlib.closing(Service(opened, model, found, limits)) as service:
        if problem := service.golden_problem(given["runtime"], quantisation):
            raise RuntimeFailed(f"{bundle}: not served, its golden images: {problem}")
        settings = Settings(
            name,
            version("edgerecall"),
            given["runtime"],
            quantisation,
            body_bytes=given["max_body"] << 20,
            token=token,
            canary_seconds=given["canary_seconds"],
        )
        setup_logging(console(stderr=True))
        serve(Server(service, settings), listen, lambda url: click.echo(f"{name} at {url}/v2/models/{name}"))
    return 0


def read_token(file: Path) -> str:
    """The token in a file, without the line's end."""
    from ...runtimes.core.errors import InputError

    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'not ASCII'}") from error
    if len(token) < 8 or not token.isprintable() or " " in token:
        raise InputError(f"--token-file {file}: expected a token of 8 characters or more, without spaces")
    return token
