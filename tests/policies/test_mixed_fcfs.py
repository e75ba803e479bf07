"""Mixed FCFS: any sizes in one batch, in order of arrival, joining at step boundaries."""

from __future__ import annotations

from policies.scheduling import MixedFCFS
from tests.policies.driving import Driven, names, request


def test_sizes_share_a_batch_and_leave_when_done() -> None:
    d = Driven(MixedFCFS())
    d.submit(request("small", side=64, steps=2), request("large", side=128, steps=5))
    (both,) = d.start()
    assert (names(both), both.steps) == (["small", "large"], 2)
    d.end(both)
    (rest,) = d.start()
    assert (names(rest), rest.steps) == (["large"], 3)
    d.end(rest)
    assert d.states() == {"small": "finished", "large": "finished"}
    assert d.now == 2 * 0.6 + 3 * 0.5  # 0.1 + 0.1 + 0.4 s a step together, 0.5 s alone


def test_an_arrival_joins_at_the_next_step_boundary() -> None:
    d = Driven(MixedFCFS(), stages=("encode", "denoise", "decode"))
    d.submit(request("a", steps=3))
    (alone,) = d.start()
    d.end(alone, 2)
    (alone,) = d.start()
    d.submit(request("b", d.now, side=128))
    assert d.recalled() == [alone.launch_id]
    d.end(alone, 1)
    (encode,) = d.start()
    assert (encode.stage, names(encode)) == ("encode", ["b"])
    d.end(encode)
    (both,) = d.start()
    assert (both.stage, names(both), both.steps) == ("denoise", ["a", "b"], 1)
    d.end(both)
    (decode,) = d.start()
    assert (decode.stage, names(decode)) == ("decode", ["a"])


def test_no_more_than_max_batch_requests_and_the_oldest_first() -> None:
    d = Driven(MixedFCFS(max_batch=2))
    d.submit(*[request(name, steps=3) for name in "abc"])
    (launch,) = d.start()
    assert names(launch) == ["a", "b"]
    assert d.recalled() == []


def test_replicas_share_the_queue_evenly() -> None:
    d = Driven(MixedFCFS(), replicas=2)
    d.submit(*[request(name) for name in "abcde"])
    first, second = d.start()
    assert (names(first), names(second)) == (["a", "b", "c"], ["d", "e"])
    d.submit(request("f"))
    assert d.recalled() == [second.launch_id]
    d.end(second, 1)
    (joined,) = d.start()
    assert names(joined) == ["d", "e", "f"]
