"""The failures as a page and a contact sheet, because people look before they read."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...runtimes.core.errors import ImageError
from ...runtimes.core.files import atomic_folder
from ...runtimes.core.pages import render
from ...runtimes.preprocess.image_list import ImageList
from ...runtimes.preprocess.images import load_rgb
from .failures import ClassScore, Failure, Neighbour
from .metrics import RetrievalScores

PAGE_NAME, SHEET_NAME, CLASSES_NAME = "failures.html", "worst_queries.png", "classes.csv"
SIDE, GAP, LABEL = 112, 8, 16
RIGHT, WRONG, NEUTRAL = "#1a7f37", "#cf222e", "#57606a"
ROWS_SHOWN = 60


def write_failures(
    folder: Path,
    scores: RetrievalScores,
    classes: list[ClassScore],
    failures: list[Failure],
    query_images: ImageList,
    gallery_images: ImageList,
    source: str,
) -> Path:
    """`failures.html`, `worst_queries.png` and `classes.csv` in a folder of their own; returns the page's path.

    source: where the figures come from. InputError when the folder holds anything but an earlier report.
    """
    rows = [(failure, cells(failure, query_images, gallery_images)) for failure in failures]
    page = render(
        __file__,
        "failures.html.j2",
        summary=f"{scores.line(0).partition(']')[2].rpartition(']')[2]}; {scores.queries} queries,"
        f" {int((~scores.hits).sum())} missed at rank 1.",
        source=source,
        side=SIDE,
        rows=[{"rank": failure.rank, "cells": [cell.for_page() for cell in row]} for failure, row in rows],
        classes=classes[:ROWS_SHOWN],
        total=len(classes),
        csv=CLASSES_NAME,
    )
    with atomic_folder(folder, replace=PAGE_NAME) as temporary:
        (temporary / PAGE_NAME).write_text(page, encoding="utf-8")
        contact_sheet([(failure.rank, row) for failure, row in rows]).save(temporary / SHEET_NAME)
        with (temporary / CLASSES_NAME).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["label", "folder", "queries", "recall1", "worst_rank"])
            writer.writerows([c.label, c.name, c.queries, f"{c.recall1:.6f}", c.worst_rank] for c in classes)
    return folder / PAGE_NAME


class Cell:
    """A thumbnail with a border and a title."""

    def __init__(self, path: Path, shown_path: str, title: str, colour: str) -> None:
        self.path, self.title, self.colour = shown_path, title, colour
        self.image = thumbnail(path)

    def for_page(self) -> dict[str, str]:
        """The cell for the page, its image inside."""
        return {"path": self.path, "title": self.title, "colour": self.colour, "source": data_uri(self.image)}


def cells(failure: Failure, query_images: ImageList, gallery_images: ImageList) -> list[Cell]:
    """The query, what came, and what should have come."""

    def cell(neighbour: Neighbour, title: str) -> Cell:
        path = gallery_images.paths[neighbour.index]
        colour = RIGHT if neighbour.relevant else WRONG
        return Cell(gallery_images.file(neighbour.index), path, f"{title}{neighbour.similarity:.3f}", colour)

    row = [Cell(query_images.file(failure.query), query_images.paths[failure.query], "query", NEUTRAL)]
    row += [cell(neighbour, f"{rank}: ") for rank, neighbour in enumerate(failure.nearest, start=1)]
    row.append(cell(failure.expected, f"rank {failure.rank}: "))
    return row


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG inside a page."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def thumbnail(path: Path) -> Image.Image:
    """The image fitted into a square; an empty one where it cannot be read any more."""
    square = Image.new("RGB", (SIDE, SIDE), "#f6f8fa")
    try:
        image = Image.fromarray(load_rgb(path))
    except ImageError:
        return square
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square


def contact_sheet(rows: list[tuple[int, list[Cell]]]) -> Image.Image:
    """One line of thumbnails per failure."""
    columns = max((len(row) for _, row in rows), default=1)
    step, height = SIDE + 2 * GAP, SIDE + 2 * GAP + LABEL
    sheet = Image.new("RGB", (columns * step, max(len(rows), 1) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    if not rows:
        draw.text((GAP, GAP), "no failures", fill="black", font=font)
    for line, (_, row) in enumerate(rows):
        for column, cell in enumerate(row):
            x, y = column * step + GAP, line * height + GAP
            draw.rectangle((x - 3, y - 3, x + SIDE + 2, y + SIDE + 2), fill=cell.colour)
            sheet.paste(cell.image, (x, y))
            draw.text((x, y + SIDE + 4), cell.title, fill="black", font=font)
    return sheet
