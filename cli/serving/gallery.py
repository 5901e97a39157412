"""`edgerecall gallery`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import command_line, console, options_of, progress_bar, setup_logging, share_bar, tell_passed_over

if TYPE_CHECKING:
    from ...runtimes.embed.model import EmbeddingModel
    from ...runtimes.gallery.disk_gallery import DiskGallery
    from ...runtimes.gallery.entries import Entry

PATH = click.Path(path_type=Path)


class Place(click.ParamType[Any]):
    """A folder, or the URL of a database."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """A text with :// stays one."""
        from ...runtimes.stores.opening import is_url

        return value if is_url(value) else Path(value)


PLACE = Place()


@click.group()
def command() -> None:
    """Embeddings with ids and labels on disk: which product is this?"""


def not_empty(text: str | None) -> str | None:
    """A text with something in it."""
    if text == "":
        raise click.BadParameter("expected a text between two columns")
    return text


def index_kind(text: str | None) -> str | None:
    """An index that can be made, by a library that is there."""
    if text is None:
        return None
    import faiss  # noqa: F401

    from ...runtimes.approximate.faiss_index import parsed

    parsed(text)
    return text


IMAGES = (
    click.option("--images", type=PATH, required=True, help="Folder of images; an id is a path below it."),
    click.option("--list", "listed", type=PATH, help="Those of a list, 'path label' a line, and their labels."),
    click.option(
        "--delimiter",
        callback=lambda _, __, text: not_empty(text),
        help="Between the list's columns; by default a tab where there is one, else a space.",
    ),
    click.option("--label-by-folder", is_flag=True, help="Without a list: the label is the name of an image's folder."),
    click.option("--strict", is_flag=True, help="End at the first bad image."),
)
METADATA = click.option(
    "--metadata",
    "told",
    type=PATH,
    help='What is to be kept beside images that are added: {"id": ID, "metadata": {...}} a line, as \'gallery list\''
    " has it; null: nothing.",
)
ARTIFACT = (
    click.option("--runtime", default="onnxruntime", show_default=True, help="What computes the embeddings."),
    click.option(
        "--quantization",
        "--quantisation",
        "quantisation",
        help="Of the artifact to take: fp32, fp16 or int8; by default fp32.",
    ),
)
MODEL = (
    *ARTIFACT,
    click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024)),
)


INDEX = click.option(
    "--index",
    "kind",
    callback=lambda _, __, text: index_kind(text),
    help="Also make an index for approximate search: faiss:IVF<lists> or faiss:HNSW<links>.",
)


@command.command()
@click.argument("gallery", type=PATH)
@click.argument("bundle", type=PATH)
@options_of(*IMAGES, METADATA, *MODEL)
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16", "int8", "binary"]),
    help="How embeddings are kept, by default float32; int8 is faster to search, and as exact; binary keeps signs"
    " alone, for models trained for them.",
)
@options_of(INDEX)
@click.option("--resume", is_flag=True, help="Go on with one that was interrupted: images that are there are left out.")
def build(gallery: Path, bundle: Path, storage: Any, kind: str | None, resume: bool, **given: Any) -> int:
    """Embed images by BUNDLE into a new GALLERY."""
    from ...runtimes.approximate.faiss_index import require_rows
    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.core.errors import InputError
    from ...runtimes.gallery.gallery import Gallery
    from ...runtimes.gallery.manifest import FILE

    entries = entries_given(given)
    opened = Bundle.open(bundle)
    if resume and (gallery / FILE).is_file():
        with Gallery.open(gallery, writable=True, model=opened) as target:
            if storage not in (None, target.manifest.storage):
                raise InputError(f"--storage: {gallery} was begun with {target.manifest.storage}")
            code = add_entries(target, bundle, entries, given, skip=True)
            make_index(target, kind, given["threads"])
            return code
    # The model first: what cannot be opened leaves no gallery behind.
    made = not gallery.exists()
    kept: Any = storage or "float32"
    if kind is not None:
        require_rows(kind, len(entries))
    with load_model(bundle, given) as model, Gallery.create(gallery, opened, kept, command_line()) as target:
        try:
            code = embed_entries(target, model, entries, given)
            make_index(target, kind, given["threads"])
            return code
        except BaseException:
            if len(target):
                click.echo(f"{gallery}: {len(target)} rows so far: repeat the command with --resume to go on", err=True)
            else:
                shutil.rmtree(gallery, ignore_errors=True)
                if not made:
                    gallery.mkdir(exist_ok=True)
            raise


@command.command()
@click.argument("gallery", type=PATH)
@click.argument("bundle", type=PATH)
@options_of(*IMAGES, METADATA, *MODEL)
@click.option(
    "--replace", is_flag=True, help="Images that are there are embedded anew; metadata stay where none are given."
)
@click.option("--skip", is_flag=True, help="Images that are there are left out.")
def add(gallery: Path, bundle: Path, replace: bool, skip: bool, **given: Any) -> int:
    """Embed images by BUNDLE into a GALLERY that is there."""
    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.gallery.gallery import Gallery

    if replace and skip:
        raise click.UsageError("--replace and --skip: give one of them")
    entries = entries_given(given)
    with Gallery.open(gallery, writable=True, model=Bundle.open(bundle)) as target:
        return add_entries(target, bundle, entries, given, skip, replace)


@command.command()
@click.option("-c", "--config", "config_path", required=True, type=PATH, help="YAML with IndexProcess, as PP-ShiTu's.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option("--strict", is_flag=True, help="End at the first bad image.")
def index(config_path: Path, overrides: tuple[str, ...], strict: bool) -> int:
    """Do what a config's IndexProcess says.

    As PP-ShiTu's build_gallery: a new gallery in index_dir, or rows added or removed."""
    from ...runtimes.core.config import apply_overrides, read_yaml, validate
    from ...runtimes.core.errors import ImageError
    from ...runtimes.embed.predict_config import ignored_preprocess
    from ...runtimes.embed.shitu import build as build_index
    from ...runtimes.embed.shitu_config import ShituConfig

    raw = apply_overrides(read_yaml(config_path), overrides)
    config = validate(ShituConfig, raw, f"config {config_path}")
    logger = setup_logging(console(stderr=True))
    if ignored := ignored_preprocess(config):
        logger.warning("%s", ignored)
    bad: list[ImageError] = []

    def on_bad(path: Path, error: ImageError) -> None:
        bad.append(error)
        logger.warning("skipped: %s", error)

    with progress_bar("embedding", None) as advance:
        count, rows = build_index(config, command_line(), None if strict else on_bad, advance)
    done = {"new": "added", "append": "added", "remove": "removed"}[config.IndexProcess.index_operation]
    console().print(f"{config.IndexProcess.index_dir}: {count} rows {done}, {len(bad)} images skipped, {rows} rows")
    return 0


@command.command()
@click.argument("gallery", type=PATH)
@click.argument("ids", nargs=-1)
@click.option("--label", "labels", multiple=True, help="All rows with this label.")
@click.option("--from", "file", type=PATH, help="Ids of a file, one a line.")
def remove(gallery: Path, ids: tuple[str, ...], labels: tuple[str, ...], file: Path | None) -> int:
    """Remove rows by their IDS or labels from GALLERY."""
    from ...runtimes.core.files import read_text
    from ...runtimes.core.text import readable
    from ...runtimes.gallery.gallery import Gallery

    wanted = [*ids]
    if file is not None:
        wanted += [line for line in read_text(file, f"--from {file}").split("\n") if line]
    if not wanted and not labels:
        raise click.UsageError("expected ids, --label or --from: what is to be removed?")
    with Gallery.open(gallery, writable=True) as target:
        unknown = [*sorted(set(wanted) - target.known(wanted)), *sorted(set(labels) - target.labels())]
        if unknown:
            shown = readable(", ".join(unknown[:5] + ["..."] * (len(unknown) > 5)))
            setup_logging(console(stderr=True)).warning("%d of these are not there: %s", len(unknown), shown)
        count = target.remove(wanted, labels)
        console().print(f"{gallery}: {count} rows removed, {len(target)} left")
    return 0


@command.command()
@click.argument("gallery", type=PLACE)
@click.argument("bundle", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@options_of(*MODEL)
@click.option("-k", "--top", default=5, show_default=True, type=click.IntRange(1, 10_000), help="Rows for each image.")
@click.option("--label", "labels", multiple=True, help="Only rows with this label; may be given several times.")
@click.option("--min-similarity", type=click.FloatRange(-1, 1), help="No row below it.")
@click.option(
    "--duplicate", type=click.FloatRange(0, 1), help="Of rows at least this alike (cosine), only the best is told."
)
@click.option("--format", "kind", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
@click.option("--exact", is_flag=True, help="Over all rows, also where there is an index.")
@click.option("--strict", is_flag=True, help="End at the first bad image.")
def search(gallery: Path | str, bundle: Path, images: tuple[Path, ...], **given: Any) -> int:
    """Find the rows nearest to each image.

    Exactly, over all rows, or by the index where one was made, in a database too (GALLERY is its URL). BUNDLE is the
    model that GALLERY was built by."""
    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.core.errors import ImageError, InputError
    from ...runtimes.core.text import readable
    from ...runtimes.preprocess.images import find_images
    from ...runtimes.stores.opening import open_gallery

    logger = setup_logging(console(stderr=True))
    paths = [path for given_path in images for path in find_images(given_path)]
    for given_path in images:
        tell_passed_over(given_path)
    bad: list[ImageError] = []

    def on_bad(path: Path, error: ImageError) -> None:
        bad.append(error)
        logger.warning("skipped: %s", error)

    labels = given["labels"] or None
    with open_gallery(gallery, Bundle.open(bundle)) as target:
        if labels and (unknown := sorted(set(labels) - target.labels())):
            logger.warning("no row has the label %s", readable(", ".join(unknown)))
        with load_model(bundle, given) as model:
            for good, embeddings in model.stream(paths, None if given["strict"] else on_bad):
                found = target.search(
                    embeddings,
                    given["top"],
                    given["threads"],
                    labels,
                    given["min_similarity"],
                    given["duplicate"],
                    exact=given["exact"],
                )
                for path, matches in zip(good, found, strict=True):
                    show(path, matches, given["kind"])
    if len(bad) == len(paths):
        raise InputError(f"none of the {len(paths)} images could be read")
    return 0


@command.command()
@click.argument("gallery", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(gallery: Path | str, as_json: bool) -> int:
    """Tell what GALLERY holds."""
    from ...runtimes.core.text import readable
    from ...runtimes.stores.interface import Store
    from ...runtimes.stores.opening import open_gallery

    with open_gallery(gallery) as opened:
        facts: dict[str, Any] = {"rows": len(opened), "labels": len(opened.labels())}
        facts["numbers of an embedding"] = opened.dim
        model = opened.model if isinstance(opened, Store) else opened.manifest.model
        if isinstance(opened, Store):
            facts |= {"where": opened.where, "index": opened.index, "recall@10 of the index": opened.recall}
        else:
            manifest = opened.manifest
            facts |= {
                "storage": manifest.storage,
                "bytes": opened.bytes,
                "segments": len(manifest.segments),
                "removed rows on disk": sum(one.removed_rows for one in manifest.segments),
                "index": None if manifest.index is None else manifest.index.kind,
                "recall@10 of the index": None if manifest.index is None else manifest.index.recall,
                "changes": manifest.generation,
                "edgerecall": manifest.tools.get("edgerecall"),
                "command": manifest.command,
            }
        if model is not None:
            facts["model made from"] = model.source
            facts["preprocessing"] = [op.model_dump(mode="json") for op in model.spec.preprocess.ops]
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    for name, value in facts.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple)) else value
        click.echo(f"{name + ':':<26}{readable(str(shown))}")
    return 0


@command.command()
@click.argument("gallery", type=PATH)
@click.argument("url")
@click.option("--replace", is_flag=True, help="Rows that are there are written over.")
@click.option("--index", "with_index", is_flag=True, help="Make the database's approximate index, and measure it.")
def push(gallery: Path, url: str, replace: bool, with_index: bool) -> int:
    """Copy GALLERY's rows into a database.

    URL: postgresql://HOST/DATABASE?table=NAME (with the extension pgvector), qdrant://HOST:6333?collection=NAME,
    qdrant:///FOLDER?collection=NAME, milvus://HOST:19530?collection=NAME or milvus:///FOLDER.db?collection=NAME. Rows
    that are there stay, so that an interrupted copy goes on where it was."""
    from ...runtimes.gallery.gallery import Gallery
    from ...runtimes.stores.interface import copy_gallery, require_numbers
    from ...runtimes.stores.opening import store_at

    with Gallery.open(gallery) as source:
        manifest = source.manifest
        require_numbers(source)
        with store_at(url, manifest.dim, manifest.model, f"edgerecall gallery push {gallery}") as target:
            with progress_bar("copying", len(source)) as advance:
                written, left = copy_gallery(source, target, replace, advance)
            told = f"{target.where}: {written} rows copied, {left} were there, {len(target)} rows"
            if with_index:
                recall = target.build_index()
                told += f"; recall@10 of the index {target.index or 'exact'}: {recall:.4f}"
            console().print(told)
    return 0


@command.command(name="list")
@click.argument("gallery", type=PATH)
@click.option("--label", "labels", multiple=True, help="Only rows with this label; may be given several times.")
def list_rows(gallery: Path, labels: tuple[str, ...]) -> int:
    """Print its rows as lines of JSON: id, label, metadata."""
    from ...runtimes.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened:
        for one in opened.rows():
            if not labels or one.label in labels:
                click.echo(json.dumps({"id": one.id, "label": one.label, "metadata": one.metadata}, ensure_ascii=False))
    return 0


@command.command()
@click.argument("gallery", type=PATH)
@options_of(INDEX)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="For the index.")
def compact(gallery: Path, kind: str | None, threads: int) -> int:
    """Write GALLERY's rows into one file, without those removed.

    Where that changes anything, an index of them is gone, unless --index makes another."""
    from ...runtimes.approximate.faiss_index import require_rows
    from ...runtimes.gallery.gallery import Gallery

    with Gallery.open(gallery, writable=True) as target:
        before = target.bytes
        if kind is not None:
            require_rows(kind, len(target))
        target.compact()
        console().print(f"{gallery}: {len(target)} rows, {before / 1e6:.2f} MB before, {target.bytes / 1e6:.2f} MB now")
        make_index(target, kind, threads)
    return 0


def make_index(target: DiskGallery, kind: str | None, threads: int) -> None:
    """The index that was asked for, if any, and what it keeps of exact search."""
    if kind is not None:
        with progress_bar("indexing", len(target)) as advance:
            recall = target.build_index(kind, threads, advance)
        console().print(f"{target.root}: index {kind}, recall@10 {recall:.4f} of exact search")


@command.command()
@click.argument("gallery", type=PATH)
@click.argument("bundle", type=PATH, required=False)
def verify(gallery: Path, bundle: Path | None) -> int:
    """Check GALLERY's files and what is in them.

    They must be as they were written and hold what they should; and, with BUNDLE, come from its model."""
    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.gallery.check import problems
    from ...runtimes.gallery.gallery import Gallery

    with Gallery.open(gallery, model=None if bundle is None else Bundle.open(bundle)) as opened:
        with share_bar(20) as advance:
            found = problems(opened, lambda share: advance("reading files", share))
        for problem in found:
            click.echo(problem)
        if not found:
            console().print(f"{gallery}: ok, {len(opened)} rows in {len(opened.segments)} files")
    return 1 if found else 0


def entries_given(given: dict[str, Any]) -> list[Entry]:
    """The images that the options name, with their labels, and metadata where the command has them."""
    from ...runtimes.gallery.entries import with_metadata

    found = images_given(given)
    return found if given.get("told") is None else with_metadata(found, given["told"])


def images_given(given: dict[str, Any]) -> list[Entry]:
    """Those of the list, or of the folder."""
    from ...runtimes.gallery.entries import entries_of_folder, entries_of_list

    if given["listed"] is None:
        if given["delimiter"] is not None:
            raise click.UsageError("--delimiter is of a list: give --list FILE")
        found = entries_of_folder(given["images"], given["label_by_folder"])
        tell_passed_over(given["images"])
        return found
    if given["label_by_folder"]:
        raise click.UsageError("--label-by-folder: a list brings its own labels")
    return entries_of_list(given["listed"], given["images"], given["delimiter"])


def load_model(bundle: Path, given: dict[str, Any]) -> EmbeddingModel:
    """The bundle's model, as the options ask: a replica for each thread."""
    from ...runtimes.embed.model import load

    return load(bundle, given["runtime"], replicas=given["threads"], quantisation=given["quantisation"])


def add_entries(
    target: DiskGallery, bundle: Path, entries: list[Entry], given: dict[str, Any], skip: bool, replace: bool = False
) -> int:
    """Into a gallery that is there."""
    there = target.known([entry.id for entry in entries]) if skip else set()
    left = [entry for entry in entries if entry.id not in there]
    if there:
        console(stderr=True).print(f"{len(there)} of {len(entries)} images are there already")
    if not left:
        console().print(f"{target.root}: nothing to add, {len(target)} rows")
        return 0
    with load_model(bundle, given) as model:
        return embed_entries(target, model, left, given, replace)


def embed_entries(
    target: DiskGallery, model: EmbeddingModel, entries: list[Entry], given: dict[str, Any], replace: bool = False
) -> int:
    """Embeds and adds; says how many."""
    from ...runtimes.core.errors import ImageError, InputError
    from ...runtimes.embed.gallery_build import embed_into

    logger = setup_logging(console(stderr=True))
    bad: list[ImageError] = []
    if given["told"] is not None and (lacking := sum(entry.metadata is None for entry in entries)):
        console(stderr=True).print(f"{given['told']}: has no line for {lacking} of {len(entries)} images")

    def on_bad(path: Path, error: ImageError) -> None:
        bad.append(error)
        logger.warning("skipped: %s", error)

    with progress_bar("embedding", len(entries)) as advance:
        added = embed_into(target, model, entries, None if given["strict"] else on_bad, replace, advance)
    if not added:
        raise InputError(f"none of the {len(entries)} images could be read")
    console().print(f"{target.root}: {added} images added, {len(bad)} skipped, {len(target)} rows")
    return 0


def show(path: Path, matches: list[Any], kind: str) -> None:
    """An image's matches."""
    from ...runtimes.core.text import readable

    if kind == "jsonl":
        rows = [
            {"id": one.id, "similarity": one.similarity, "label": one.label}
            | ({"metadata": one.metadata} if one.metadata else {})
            for one in matches
        ]
        click.echo(json.dumps({"image": str(path), "matches": rows}, ensure_ascii=False))
        return
    click.echo(readable(str(path)))
    for rank, one in enumerate(matches, 1):
        label = "" if one.label is None else f"  {one.label}"
        click.echo(readable(f"  {rank:>3}  {one.similarity:.4f}{label}  {one.id}"))
    if not matches:
        click.echo("       nothing that near")
