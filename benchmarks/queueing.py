"""Queues that have a formula: what the planner's pre-filter asks, and what the simulator is checked against.

``rate_rps`` is requests a second, ``service_s`` the mean seconds of one, ``servers`` how many work side by side; waits
are from arrival to start, in first-come order. ``scv`` is a squared coefficient of variation: variance over squared
mean; 0 for constant, 1 for exponential. A queue that is asked for more than it can do waits for ever: infinity.
"""

from __future__ import annotations

import math


def load(rate_rps: float, service_s: float, servers: int = 1) -> float:
    """Share of the servers that the demand keeps busy; 1 and more: it cannot be met."""
    return rate_rps * service_s / servers


def erlang_b(offered: float, servers: int) -> float:
    """Share of arrivals that find all servers of M/G/c/c busy; ``offered`` is rate times service time.

    By the recursion over servers, stable for thousands of them (Gross and Harris, Fundamentals of Queueing Theory,
    2.5).
    """
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked


def erlang_c(offered: float, servers: int) -> float:
    """Share of arrivals at M/M/c that wait (ibid. 2.3); 1 when they would wait for ever."""
    if offered >= servers:
        return 1.0
    blocked = erlang_b(offered, servers)
    return blocked / (1 - offered / servers * (1 - blocked))


def mmc_wait_s(rate_rps: float, service_s: float, servers: int = 1) -> float:
    """Mean wait in M/M/c (ibid. 2.3)."""
    busy = load(rate_rps, service_s, servers)
    if busy >= 1:
        return math.inf
    return erlang_c(rate_rps * service_s, servers) * service_s / (servers * (1 - busy))


def mg1_wait_s(rate_rps: float, service_s: float, scv: float) -> float:
    """Mean wait in M/G/1: Pollaczek and Khinchine (ibid. 5.1)."""
    busy = load(rate_rps, service_s)
    return math.inf if busy >= 1 else busy * service_s * (1 + scv) / (2 * (1 - busy))


def md1_wait_s(rate_rps: float, service_s: float) -> float:
    """Mean wait in M/D/1, half of that in M/M/1."""
    return mg1_wait_s(rate_rps, service_s, 0.0)


def ggc_wait_s(
    rate_rps: float, service_s: float, servers: int = 1, arrival_scv: float = 1.0, service_scv: float = 1.0
) -> float:
    """Mean wait in G/G/c, nearly: that of M/M/c times the mean of the two ``scv``.

    Allen and Cunneen's approximation (Allen, Probability, Statistics, and Queueing Theory, 2nd ed., 5.3); with Poisson
    arrivals it is Lee and Longton's (1959), exact for M/G/1 and M/M/c. Some per cent off at high load, more at low load
    with many servers, where waits are short.
    """
    return mmc_wait_s(rate_rps, service_s, servers) * (arrival_scv + service_scv) / 2


def wait_quantile_s(
    share: float,
    rate_rps: float,
    service_s: float,
    servers: int = 1,
    arrival_scv: float = 1.0,
    service_scv: float = 1.0,
) -> float:
    """The wait that the ``share`` of requests do not exceed, nearly.

    Exact for M/M/c, where those who wait do so for an exponential time; otherwise that time is stretched as the mean is
    in `ggc_wait_s`.
    """
    offered = rate_rps * service_s
    if offered >= servers:
        return math.inf
    waits = erlang_c(offered, servers)
    if share <= 1 - waits:
        return 0.0
    mean_of_waiting = service_s / (servers - offered) * (arrival_scv + service_scv) / 2
    return mean_of_waiting * math.log(waits / (1 - share)) if share < 1 else math.inf


def least_servers(
    rate_rps: float,
    service_s: float,
    wait_s: float = math.inf,
    share: float = 0.5,
    arrival_scv: float = 1.0,
    service_scv: float = 1.0,
) -> int:
    """The fewest servers with which the ``share`` of requests wait at most ``wait_s``, by `wait_quantile_s`.

    With an infinite ``wait_s``: the fewest that keep up at all. ``share`` is less than 1, ``wait_s`` at least 0.
    """
    servers = max(1, math.floor(rate_rps * service_s) + 1)
    while math.isfinite(wait_s) and (
        wait_quantile_s(share, rate_rps, service_s, servers, arrival_scv, service_scv) > wait_s
    ):
        servers += 1
    return servers
