"""``tilecast quality``: what pictures and clips look like, in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.console import new_console, say
from traces.limits import Range


def quality(
    pictures: Annotated[
        Path,
        typer.Argument(help="A picture, a clip, a folder of them, or a run with its pictures.", metavar="PICTURES"),
    ],
    reference: Annotated[
        Path | None, typer.Argument(help="What they should look like, under the same names.", metavar="REFERENCE")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the figures to this file, too, as JSON.")
    ] = None,
    sketch: Annotated[
        Path | None, typer.Option(help="Measure against the sketches they were refined from, under the same names.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Look for seams at these rows where tiles meet, in pixels, like 64,128.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Look for seams at these columns where tiles meet, in pixels, like 64,128.")
    ] = None,
    objects: Annotated[
        int | None,
        Range(0, 10_000, "objects", whole=True),
        typer.Option(help="Expect each picture to show this many objects."),
    ] = None,
) -> None:
    """Measure pictures and clips: PSNR and SSIM to a reference, seams, edge leak, flicker, repeated objects.

    PNG, WebP and GIF are read, still or animated. Without --rows and --columns, regular grids of seams are sought,
    which sees less.
    """

    from reports.quality import Borders
    from reports.quality.report import QUALITY, QualityReport
    from traces.output import check_file

    borders = None
    if rows is not None or columns is not None:
        borders = Borders(_lines("rows", rows), _lines("columns", columns))
    if output is not None:
        check_file(output, QUALITY)
    judged = QualityReport.of(pictures, reference, borders, sketch, objects)
    new_console().print(judged.table())
    if output is not None:
        judged.write(output)
        say(f"wrote {output}")


def _lines(name: str, text: str | None) -> tuple[int, ...]:
    from traces.mix import parse_count

    return () if text is None else tuple([parse_count(part.strip(), f"--{name}") for part in text.split(",")])
