"""The page: whole without a network, nothing of a run log taken for markup, small for big runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from reports import plots
from reports.boxes import BoxPlot, add_boxes
from reports.comparison import Comparison
from reports.document import TRACES, render
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
    assert "Replicas over time" not in text


def test_page_shows_replicas_that_come_and_go(make_run):
    lifetimes = [[0, None, None, None], [1, 1.0, 2.0, 19.0]]
    comparison = Comparison.of([make_run("one"), make_run("two", lifetimes=lifetimes)])
    text = " ".join(read(page(comparison)).text)
    assert "Replicas over time" in text
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
    run = make_run("<b>bold<b>")
    for plot in PLOTS:
        assert "<b>" not in plot.draw(Comparison.of([run])).to_json()
    assert "&lt;b&gt;bold" in plots.latency_cdf(Comparison.of([run])).data[0].name


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
        assert set(json.loads(data)) == {plot.name for plot in plots_of(comparison)}


def test_latency_curve_ends_at_the_share_that_finished(make_run):
    curve = plots.latency_cdf(Comparison.of([make_run()])).data[0]
    assert curve.x.tolist() == [9, 9, 16]
    assert curve.y.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_boxes_carry_quantiles_not_requests(make_run):
    upper, lower = plots.latency_by_size(Comparison.of([make_run()])).data
    for half in (upper, lower):
        assert list(half.x) == ["512x512", "1024x1024"]
        assert list(half.base) == [9, 16]
        assert "median 9.00 s" in half.customdata[0]


@pytest.mark.parametrize("name", ["run", ""])
def test_halves_of_a_box_end_at_its_quartiles_and_whiskers(name):
    figure = go.Figure()
    add_boxes(figure, [("one", BoxPlot(1.0, 2.0, 4.0, 7.0, 12.0))], "#0072B2", name, lying=True)
    ends = [(half.base[0] + half.x[0], half.error_x.array[0], half.error_x.arrayminus[0]) for half in figure.data]
    assert ends == [(7.0, 5.0, 0.0), (2.0, 0.0, 1.0)]
    upper, lower = (half.offsetgroup for half in figure.data)
    assert upper == lower != ""  # side by side otherwise


def test_a_page_draws_what_its_library_can(make_run):
    comparison = Comparison.of([make_run()])
    figures = {plot.name: plot.draw(comparison) for plot in PLOTS}
    assert {trace.type for figure in figures.values() for trace in figure.data} == TRACES
    figures["odd"] = go.Figure().add_heatmap(z=[[1]])
    with pytest.raises(ValueError, match="chart odd has heatmap"):
        render("page.html", REPORT, figures)


def test_utilisation_is_that_of_all_replicas(make_run):
    band, mean = plots.utilisation_over_time(Comparison.of([make_run()])).data
    assert len(mean.y) == plots.SLICES
    assert float(np.mean(mean.y)) == pytest.approx((11 + 16) / (2 * 18), abs=1e-6)  # busy 1-12 s and 2-18 s of 18 s
    assert max(band.y) <= 1
    assert min(band.y) >= 0


def test_rare_sizes_are_shown_together(make_run):
    bars = plots.attainment_by_size(Comparison.of([big_run(make_run, 2000)])).data[0]
    assert len(bars.x) == plots.SIZES + 1
    assert bars.x[-1] == plots.OTHER


def test_a_big_run_makes_a_small_page(make_run):
    assert len(page(Comparison.of([big_run(make_run, 100_000)]))) < 1_500_000


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
