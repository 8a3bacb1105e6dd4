"""What the paper observed of the consistency of views, held against what was measured. As claims.py: each is a function that
gives (verdict, figure in words).
"""
from claims import NOT_MEASURED, OPEN, REFUTED, REPRODUCED

INTRINSIC = ("fresh", "zombie", "dying", "as-good-as-dead")
EXTRINSIC = ("died", "changed")
RARE = 0.01  # of records

ALL = []


def observation(words):
    def register(evaluate):
        ALL.append((words, evaluate))
        return evaluate
    return register


def ways(runs, name):
    return [(run, way) for run in runs for way in run["ways"] if way["way"] == name and way["views"]]


def total(runs, name, kind, what):
    """(records, views that have one, views) of all runs."""
    seen = [(way[kind][what]["records"], way[kind][what]["views"], way["views"]) for _, way in ways(runs, name)]
    return tuple(map(sum, zip(*seen))) if seen else (0, 0, 0)


def share(runs, name, kind):
    """Records of the kind for each record of a process."""
    records = sum(seen["records"] for _, way in ways(runs, name) for seen in way[kind].values())
    processes = sum(way["processes"] for _, way in ways(runs, name))
    return records / processes if processes else None


def seen_or_bound(records, in_views, views):
    """With none in N views, the rate is below 3/N with a confidence of 95 of 100."""
    return f"{records} in {in_views} of {views} views" if records else f"none in {views} views, so in less than {3 / views:.2g} of them"


def forms(runs, kind, wanted):
    """Whether each of them was met live."""
    found = {what: total(runs, "live", kind, what) for what in wanted}
    if not any(views for *_, views in found.values()):
        return NOT_MEASURED, "no live views"
    figure = "; ".join(f"{what}: {seen_or_bound(*seen)}" for what, seen in found.items())
    return (REPRODUCED if all(records for records, *_ in found.values()) else OPEN), figure


@observation("States of the guest itself are met: fresh, zombie, dying and as-good-as-dead tasks")
def intrinsic_forms(runs):
    return forms(runs, "intrinsic", INTRINSIC)


@observation("Reading a guest that runs meets tasks that die, and attributes that change, meanwhile")
def extrinsic_forms(runs):
    return forms(runs, "extrinsic", EXTRINSIC)


@observation("Such inconsistencies are rare")
def rare(runs):
    shares = {}
    for run in runs:
        one = [share([run], "live", "extrinsic"), share([run], "live", "intrinsic")]
        if None not in one:
            shares[run["kernel"], run["churn"]] = sum(one)
    if not shares:
        return NOT_MEASURED, "no live views"
    worst = max(shares, key=shares.get)
    calm = [value for (_, churn), value in shares.items() if churn == "idle"]
    few = sum(value < RARE for value in shares.values())
    figure = (f"{few} of {len(shares)} kinds of change have less than one in a hundred records; the worst is {worst[1]} on {worst[0]} with "
              f"{100 * shares[worst]:.2g} in a hundred" + (f", idle guests have {100 * max(calm):.2g}" if calm else ""))
    return (REPRODUCED if few == len(shares) else REFUTED if few * 2 < len(shares) else OPEN), figure


@observation("Pausing the guest does not remove those of the guest itself")
def pause_keeps_intrinsic(runs):
    live, halted = share(runs, "live", "intrinsic"), share(runs, "halted", "intrinsic")
    if not live or halted is None:
        return NOT_MEASURED, "none was met live, or no view was halted"
    noticed = sum(seen["records"] for _, way in ways(runs, "halted") for seen in way["extrinsic"].values())
    figure = (f"{1000 * live:.3g} of 1,000 records live, {1000 * halted:.3g} halted; of those that come from reading {noticed} were left when halted, "
              f"{sum(seen['records'] for _, way in ways(runs, 'live') for seen in way['extrinsic'].values())} live")
    return (REPRODUCED if halted >= live / 2 else REFUTED), figure


@observation("Pausing the guest is expensive")
def pause_is_expensive(runs):
    halted = [way["pause_ns"]["median"] / 1e6 for _, way in ways(runs, "halted")]
    proven = [(way["views"], way["failed"]) for _, way in ways(runs, "proven")]
    if not halted:
        return NOT_MEASURED, "no view was halted"
    views, failed = map(sum, zip(*proven)) if proven else (0, 0)
    figure = (f"the guest stood for {min(halted):.3g} to {max(halted):.3g} ms (medians by kind of change) of each view; one moment was proven without "
              f"a pause in {views} of {views + failed} views")
    return (REPRODUCED if min(halted) > 0 else REFUTED), figure


def contradictions(runs, name):
    return sum(seen["records"] for _, way in ways(runs, name) for seen in way["contradictions"].values())


@observation("A reader that notices nothing shows what never was")
def naive_is_wrong(runs):
    """What is no more than in halted views is the guest's own: the middle of a change."""
    views = sum(way["views"] for _, way in ways(runs, "naive"))
    if not views:
        return NOT_MEASURED, "no naive views"
    counts = {name: contradictions(runs, name) for name in ("naive", "live", "proven", "halted", "snapshot")}
    own = max(counts["halted"], counts["snapshot"])
    noticed = [total(runs, "live", "extrinsic", what) for what in ("died", "recycled", "changed", "unreadable")
               if all(what in way["extrinsic"] for _, way in ways(runs, "live"))]
    figure = ("records that contradict their own view: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + f", in {views} views each; "
              f"reading live noticed {sum(records for records, *_ in noticed)} that a naive reader would have shown")
    return (REPRODUCED if counts["naive"] > 2 * own else OPEN), figure


def evaluate(runs):
    answers = []
    for words, function in ALL:
        verdict, figure = function(runs)
        answers.append({"claim": words, "verdict": verdict, "figure": figure})
    return answers
