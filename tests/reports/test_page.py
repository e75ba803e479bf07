"""The page: whole without a network, nothing of a run log taken for markup, small for big runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from reports import charts, plots
from reports.comparison import Comparison
from reports.document import Chart, Document, PageSection, render
from reports.markdown import REPORT
from reports.page import PLOTS, page, plots_of, write_page

EVIL = "<img src=x onerror=alert(1)></script><a href='https://example.com'>"


class Reader(HTMLParser):
    """Collects elements, attributes and text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.data: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        (self.data if self.tags[-1:] == ["script"] else self.text).append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_page_needs_no_network(make_run):
    reader = read(page(Comparison.of([make_run("one"), make_run("two")])))
    links = [value for name, value in reader.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links == []
    assert "link" not in reader.tags
    policy = next(value for name, value in reader.attributes if name == "content" and "default-src" in (value or ""))
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not [text for text in reader.text if "http://" in text or "https://" in text]


def test_page_says_what_matters(make_run):
    comparison = Comparison.of([make_run("one"), make_run("two", warnings=["odd size"])])
    text = " ".join(read(page(comparison)).text)
    for needle in ("one", "two", "met equally many deadlines", "odd size", "by extrapolation", "burst.csv"):
        assert needle in text
    for plot in plots_of(comparison):
        assert plot.title in text
    assert "paid for, and dotted" not in text


def test_page_shows_replicas_that_come_and_go(make_run):
    lifetimes = [[0, None, None, None], [1, 1.0, 2.0, 19.0]]
    comparison = Comparison.of([make_run("one"), make_run("two", lifetimes=lifetimes)])
    text = " ".join(read(page(comparison)).text)
    assert "paid for, and dotted" in text
    assert "Saved against the most replicas" in text


def test_text_of_a_run_log_is_escaped(make_run):
    def spoil(requests, steps):
        requests["tenant"] = requests["model"] = requests["reason"] = EVIL
        steps["stage"] = steps["stage"].replace("decode", EVIL)

    run = make_run(edit=spoil, scheduler=EVIL, model=EVIL, scenario={"prompt": EVIL}, warnings=[EVIL], tilecast=EVIL)
    reader = read(page(Comparison.of([run])))
    assert "img" not in reader.tags
    assert "a" not in reader.tags
    assert reader.tags.count("script") == 3
    assert EVIL in " ".join(reader.text)


def test_names_of_runs_are_text_in_plots(make_run):
    comparison = Comparison.of([make_run("<b>bold<b>"), make_run("other")])
    drawn = [plot.draw(comparison) for plot in PLOTS]
    assert not [figure for figure in drawn if "<b>" in figure.to_json()]
    assert "&lt;b&gt;bold" in [trace.name for trace in plots.latency_cdf(comparison).data][-2]


def test_runs_are_told_apart_without_colour(make_run):
    names = [f"run {at}" for at in range(5)]
    comparison = Comparison.of([make_run(name) for name in names])
    for plot in PLOTS:
        shown = [trace for trace in plot.draw(comparison).data if trace.showlegend and trace.name in names]
        looks = {(trace.line.dash, trace.marker.symbol) for trace in shown}
        assert len(looks) == len(shown), plot.title


def test_same_runs_same_bytes(make_run, tmp_path):
    comparison = Comparison.of([make_run()])
    for name in ("one.html", "two.html"):
        write_page(comparison, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("fixture", ["empty_run", "lost_run", "interrupted_run", "loading_run"])
def test_page_of_odd_runs(fixture, request, make_run):
    run = request.getfixturevalue(fixture)
    for runs in ([run], [run, make_run("other")]):
        comparison = Comparison.of(runs)
        text = page(comparison)
        data = text.split('type="application/json">')[1].split("</script>")[0]
        assert len(json.loads(data)) == text.count('class="chart"') <= len(plots_of(comparison))


def test_latency_curve_ends_at_the_share_that_finished(make_run):
    def finish(requests, _):
        requests["status"] = "finished"

    curve, marked = plots.latency_cdf(Comparison.of([make_run()])).data
    assert curve.x.tolist() == [9, 9, 16]
    assert curve.y.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert list(marked.x) == []  # half never finished, so that no percentile that is marked is known
    curve, marked = plots.latency_cdf(Comparison.of([make_run("all", edit=finish)])).data
    assert curve.x.tolist() == [2, 8, 9, 9, 14, 16]
    assert list(marked.y) == [0.5, 0.95, 0.99]
    assert 9 <= marked.x[0] <= marked.x[1] <= marked.x[2] <= 16


def test_sizes_carry_quantiles_not_requests(make_run):
    figure = plots.latency_by_size(Comparison.of([make_run()]))
    whisker, middle, median = figure.data
    assert figure.layout.yaxis.ticktext == ("512x512", "512x768", "1024x1024")
    assert (list(median.x), list(median.y)) == ([9, 16], [0, 2])  # of 512x768 nothing finished
    assert list(whisker.x) == list(middle.x) == [9, 9, None, 16, 16, None]
    assert "median 9.00 s" in median.text[0]


def test_attainment_is_drawn_against_the_load_where_that_differs(make_run):
    def denser(requests, steps):
        requests["arrival_s"] /= 2

    alike = Comparison.of([make_run("one"), make_run("two")])
    unlike = Comparison.of([make_run("a"), make_run("b", edit=denser)])
    assert plots_of(alike)[0].title == "Deadlines kept by run"
    assert plots_of(unlike)[0].title == "Deadlines kept by load"
    assert list(plots.attainment(unlike).data[0].x) == pytest.approx([5 / 6, 5 / 3])


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 2.0, 5.0], [1e-4, 2e6], [0.9, 1.1], [4e-3, 0.7, float("inf")]])
def test_a_logarithmic_axis_has_few_labels_and_holds_its_values(values):
    axis = charts.log_axis(values)
    ends = [10.0**end for end in axis["range"]]
    assert 2 <= len(axis["tickvals"]) <= charts.TICKS
    assert all(ends[0] < value < ends[1] for value in [*axis["tickvals"], *values] if 0 < value < float("inf"))
    apart = np.diff(np.log10(axis["tickvals"])) / np.ptp(axis["range"])
    assert min(apart) > 0.04


def test_a_page_draws_what_its_library_can(make_run):
    odd = Chart("odd", "", go.Figure().add_heatmap(z=[[1]]))
    with pytest.raises(ValueError, match="chart odd has heatmap"):
        render(Document("report", "", "", "", [PageSection("", charts=[odd])]), REPORT)


def test_utilisation_is_that_of_all_replicas(make_run):
    busy = plots.over_time(Comparison.of([make_run()])).data[2]
    assert len(busy.y) == plots.SLICES + 1
    assert float(np.mean(busy.y[:-1])) == pytest.approx((11 + 16) / (2 * 20), abs=1e-6)  # 1-12 s and 2-18 s of 20 s


def test_rare_sizes_are_shown_together(make_run):
    names = plots.attainment_by_size(Comparison.of([big_run(make_run, 2000)])).layout.yaxis.ticktext
    assert len(names) == plots.SIZES + 1
    assert names[-1] == plots.OTHER


def test_a_big_run_makes_a_small_page(make_run):
    assert len(page(Comparison.of([big_run(make_run, 30_000)]))) < 1_500_000


def big_run(make_run, count):
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(1.0, count))
    start, end = np.arange(count) * 1.0, np.arange(count) + 0.9

    def grow(frame):
        return frame.iloc[np.zeros(count, dtype=int)].reset_index(drop=True)

    first = make_run("seed")
    requests = grow(first.requests).assign(
        request_id=[f"r{at}" for at in range(count)],
        arrival_s=arrival,
        height=rng.integers(1, 40, count) * 64,
        first_start_s=arrival + 1,
        finish_s=arrival + rng.exponential(9.0, count) + 1,
    )
    steps = grow(first.steps).assign(
        launch_id=np.arange(count),
        stage="denoise",
        start_s=start,
        end_s=end,
        device_s=end - start,
        predicted_s=rng.lognormal(0, 0.2, count),
        request_ids=[[f"r{at}"] for at in range(count)],
    )
    return make_run("big", requests=requests[list(REQUEST_COLUMNS)], steps=steps[list(STEP_COLUMNS)])
