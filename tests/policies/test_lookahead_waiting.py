"""What waits for a look-ahead, against lists that are sorted anew."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from policies.job import Job
from policies.scheduling.lookahead_waiting import WaitingByDue
from traces.request import Request

seconds = st.sampled_from([1.0, 2.0, 2.5, 7.0])


@mock.patch("policies.scheduling.lookahead_waiting._LONGEST", 2)  # so that few make several parts
@given(st.lists(st.tuples(seconds, st.none() | seconds), max_size=12), st.data())
def test_the_front_is_what_sorting_gives(waiting: list[tuple[float, float | None]], data: st.DataObject) -> None:
    kept, there = WaitingByDue(), {}
    for order, (due_s, alone_s) in enumerate(waiting):
        job = Job(Request(f"r{order}", 0.0, 64, 64, 4), order)
        kept.put(job, due_s, alone_s)
        there[job] = due_s, alone_s
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(list(there)))
            kept.take(gone)
            del there[gone]
            assert gone not in kept
    count, every = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    urgent = sorted((due_s, job.order, job) for job, (due_s, alone_s) in there.items() if alone_s is None)
    assert kept.urgent(count, every) == urgent[: count * every : every]
    patient = sorted((due_s, job.order, job) for job, (due_s, alone_s) in there.items() if alone_s is not None)
    shortest = sorted(patient, key=lambda entry: (there[entry[2]][1], entry[1]))[: count * every : every]
    assert kept.patient(count, every) == patient[:1] + [entry for entry in shortest if entry not in patient[:1]]
