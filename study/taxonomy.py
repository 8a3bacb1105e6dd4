"""The eight classes, and what the paper says of them: Suneja et al., "Exploring VM Introspection:
Techniques and Trade-offs", VEE 2015. Squares: more is more; of speed more is better, of the others worse.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Class:
    name: str
    title: str
    live: bool
    consistent: bool
    speed: int
    cost: int
    impact: int
    members: tuple  # technique classes of this program


CLASSES = (
    Class("agent", "agent in the guest", True, True, 3, 3, 2, ("agent",)),
    Class("halt-snap", "halting snapshot", False, True, 2, 4, 4, ("halt-snap",)),
    Class("live-snap", "live snapshot", True, True, 3, 2, 2, ("live-snap",)),
    Class("live-map", "live memory mapping", True, False, 5, 1, 1, ("live-map",)),
    Class("live-read", "live memory reads", True, False, 4, 2, 1, ("live-read",)),
    Class("halt-map/read", "guest-halting mapping and reads", False, True, 3, 2, 3, ("halt-map", "halt-read")),
    Class("live-interface", "live interface access", True, False, 1, 4, 2, ("live-interface",)),
    Class("halt-interface", "guest-halting interface access", False, True, 1, 4, 2, ("halt-interface",)),
)
MOST = {"speed": 5, "cost": 4, "impact": 4}


def class_of(technique):
    """The paper's class of one of our techniques; None of those it does not know."""
    head = technique.split(":")[0]
    return next((entry for entry in CLASSES if head in entry.members), None)
