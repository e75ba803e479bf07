"""The cheapest replicas of several pools, on clusters whose truth is known."""

from __future__ import annotations

import math
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from tilecast.studies.joint_search import Asked, Counts, JointSearch, PoolOption, least_by_work

MOST = 12


def pool(name: str, price: float, **work_s: float) -> PoolOption:
    return PoolOption(name, price, MOST, work_s, dict.fromkeys(work_s, 1.0))


def carries(options: list[PoolOption], rates_rps: dict[str, float], counts: Counts) -> bool:
    """Whether the work of both models fits on two pools: the first does what it is better at, then the other."""
    first, second = (option.work_s for option in options)
    room_s, left_s = float(counts[0]), 0.0
    for model in sorted(rates_rps, key=lambda model: first[model] / second[model]):
        here_rps = min(rates_rps[model], room_s / first[model])
        room_s -= here_rps * first[model]
        left_s += (rates_rps[model] - here_rps) * second[model]
    return left_s <= counts[1] + 1e-9


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1, 5), st.floats(0.2, 2), st.floats(0.2, 2)), min_size=2, max_size=2),
    st.floats(0.5, 4),
    st.floats(0.5, 4),
    st.floats(1.0, 1.5),
)
def test_nothing_simulated_or_one_replica_less_is_a_cheaper_answer(
    made: list[tuple[float, float, float]], a_rps: float, b_rps: float, waiting: float
) -> None:
    """The truth takes some more than the work alone."""
    options = [pool(f"p{at}", price, a=a_s, b=b_s) for at, (price, a_s, b_s) in enumerate(made)]
    asked = Asked({"a": a_rps, "b": b_rps}, 0.9)
    harder = {"a": waiting * a_rps, "b": waiting * b_rps}
    looked: dict[Counts, bool] = {}

    def assess(counts: Counts) -> bool:
        assert counts not in looked
        looked[counts] = carries(options, harder, counts)
        return looked[counts]

    search = JointSearch(options, asked, assess)
    best = search.cheapest()
    truth = [n for n in product(range(MOST + 1), repeat=2) if any(n) and carries(options, harder, n)]
    assert (best is None) == (not truth)
    if best is None:
        return
    assert best in truth
    assert search.least_price <= search.price(best)
    assert search.price(best) == min([search.price(counts) for counts, kept in looked.items() if kept])
    for at in range(2):
        less = tuple([count - (number == at) for number, count in enumerate(best)])
        assert less not in truth
    least = min(map(search.price, truth))
    assert search.price(best) <= 1.25 * least
    assert len(looked) < 60


def test_a_cheaper_mixture_is_found_where_each_pool_is_good_at_one_model() -> None:
    options = [pool("pictures", 3.0, a=1.0, b=30.0), pool("clips", 1.0, a=9.0, b=2.0)]
    asked = Asked({"a": 4.0, "b": 3.0}, 0.9)
    search = JointSearch(options, asked, lambda counts: counts[0] >= 5 and counts[1] >= 7)
    assert search.cheapest() == (5, 7)
    assert search.refused == [f"{name}: the work takes more than {MOST} of {name}" for name in ("pictures", "clips")]


def test_what_was_rejected_is_not_answered_again() -> None:
    options = [pool("x", 1.0, a=1.0)]
    search = JointSearch(options, Asked({"a": 2.0}, 0.9), lambda counts: counts[0] >= 3)
    assert search.cheapest() == (3,)
    search.reject((3,))
    assert search.cheapest() == (4,)


def test_a_pool_that_is_too_slow_for_deadlines_is_no_way_out() -> None:
    slow = PoolOption("slow", 0.1, MOST, {"a": 1.0}, {"a": 0.3})
    fast = pool("fast", 5.0, a=1.0)
    asked = Asked({"a": 10.0}, 0.9)
    search = JointSearch([slow, fast], asked, lambda counts: counts[1] >= 6 and sum(counts) >= 11)
    best = search.cheapest()
    assert best == (5, 6)
    assert "slow: even alone only 30% on slow of a would be in time" in search.refused
    assert least_by_work([slow, fast], asked, (1, 1)) == (4, 6)  # at most 30 % of all in time is done on slow ones
    assert math.isclose(search.least_price, 0.1 * 4 + 5.0 * 6)
