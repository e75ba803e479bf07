"""What all pages have in common: one HTML file, whole without a network.

The plotting library, styles and data are in the page. A content security policy forbids it to load anything else, so
that it shows the same on a train, in an archive and in five years. Charts are drawn by the page itself; every text
that goes into one is escaped by whoever draws it, because plotly reads labels as HTML.

The library is plotly's own basic bundle, a quarter of the whole one that the Python package carries: it draws bars,
lines and points, which is what charts of pages are made of. It stands in ``reports/plotly_js`` as npm ships it
(``npm pack plotly.js-basic-dist-min@4.1.1``, MIT licence), of the version that ``constraints.txt``'s plotly draws with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.palette import DARK, LIGHT
from traces.marks import OutputKind

_FOLDER = Path(__file__).parent
_PLOTLY = _FOLDER / "plotly_js" / "plotly-basic.min.js"

TRACES = frozenset({"scatter", "bar"})
"""Types of traces that a page may draw."""


def render(template: str, kind: OutputKind, figures: Mapping[str, go.Figure], **values: Any) -> str:
    """A template of this package that extends ``shell.html``, as text; every value in it is escaped.

    Args:
        template: its path below ``reports/``.
        kind: kind of the page, for its mark.
        figures: what to draw into the element of that id.
        values: what the template names.

    Raises:
        ValueError: a figure has a trace of a type that pages do not draw.
    """
    for name, figure in figures.items():
        if unknown := {trace.type for trace in figure.data} - TRACES:
            raise ValueError(f"chart {name} has {', '.join(sorted(unknown))}; a page draws {', '.join(sorted(TRACES))}")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    drawn = {name: json.loads(figure.to_json()) for name, figure in figures.items()}
    return environment.get_template(template).render(
        generator=kind.generator,
        light=LIGHT,
        dark=DARK,
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        js=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly_js=_PLOTLY.read_text(encoding="utf-8"),
        plot_data=json.dumps(drawn, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c"),
        **values,
    )


def blank(x: str, y: str, height: int = 380) -> go.Figure:
    """An empty chart in the pages' style, with titles of its axes."""
    axis = {"gridcolor": LIGHT["rule"], "linecolor": LIGHT["muted"], "zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 56, "r": 12, "t": 44, "b": 48},
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": LIGHT["ink"]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
            "xaxis": axis | {"title": {"text": x}},
            "yaxis": axis | {"title": {"text": y}},
            "hovermode": "closest",
        }
    )
