"""What a simulation ends with that would never end."""

from policies.contract import PolicyError


class Stalled(PolicyError):  # noqa: N818
    """The simulation has nothing left to do, but requests have not ended: the policy leaves them waiting."""
