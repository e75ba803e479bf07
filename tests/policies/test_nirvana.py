"""The NIRVANA-like baseline: one size at a time, the largest first."""

from __future__ import annotations

from policies.scheduling import Nirvana
from tests.policies.driving import Driven, names, request


def test_a_size_is_drained_before_the_next_smaller_one() -> None:
    d = Driven(Nirvana(max_batch=2))
    d.submit(request("s", side=64), *[request(f"l{i}", side=128) for i in range(3)], request("m", side=96))
    order = []
    while d.controller.open:
        (launch,) = d.start()
        order.append(names(launch))
        if order == [["l0", "l1"]]:
            d.submit(request("l3", side=128))  # comes while large ones are served: it is drained with them
        if order[-1] == ["m"]:
            d.submit(request("l4", side=128))  # comes later: it has to wait for the small one
        d.end(launch)
    assert order == [["l0", "l1"], ["l2", "l3"], ["m"], ["s"], ["l4"]]


def test_nothing_joins_a_batch_that_runs() -> None:
    d = Driven(Nirvana())
    d.submit(request("a", steps=2), request("b", steps=5))
    (launch,) = d.start()
    d.submit(request("c", steps=5))
    assert d.recalled() == []
    d.end(launch)
    (rest,) = d.start()
    assert names(rest) == ["b"]
