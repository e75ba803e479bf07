"""Planted faults are caught, and named."""

from __future__ import annotations

import numpy as np
import pytest

from reports.checks import check_run
from traces.errors import BadInput


def plant(table, row, column, value):
    def edit(requests, steps):
        frame = requests if table == "requests" else steps
        frame[column] = frame[column].astype(object)
        frame.at[row, column] = value

    return edit


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (plant("requests", 2, "status", "running"), "'c' has status 'running'"),
        (plant("requests", 2, "status", ""), "'c' has status ''"),
        (plant("requests", 3, "request_id", ""), "row 3 has no request_id"),
        (plant("requests", 3, "request_id", "a"), "'a' is there more than once"),
        (plant("requests", 3, "request_id", "z"), None),
        (plant("requests", 2, "request_id", "z"), "'c' was launched but is missing"),
        (plant("requests", 0, "finish_s", np.nan), "'a' ended at nan s"),
        (plant("requests", 3, "finish_s", 1.0), "'d' ended at 1.0 s"),
        (plant("steps", 4, "start_s", 8.5), "launches 3 and 4 overlap on replica 0"),
        (plant("steps", 4, "start_s", 9 - 1e-7), None),
        (plant("steps", 2, "replica", 2), "replica 2, but the run has 2"),
        (plant("steps", 1, "end_s", 1.0), "launch 1 starts at 2.0 s and ends at 1.0 s"),
    ],
)
def test_planted_faults(make_run, fault, message):
    run = make_run(edit=fault)
    if message is None:
        check_run(run)
    else:
        with pytest.raises(BadInput, match=message.replace("(", r"\(")):
            check_run(run)


def test_replicas_must_be_a_number(make_run):
    with pytest.raises(BadInput, match="replicas is 'two'"):
        check_run(make_run(replicas="two"))
