"""The paper's claims, held against what was measured. Each is a function of the results that gives
(verdict, figure in words); nothing here knows how anything was measured.
"""

from figures import rank_correlation

REPRODUCED, REFUTED, OPEN, NOT_MEASURED = "reproduced", "refuted", "inconclusive", "not measured"
MARGIN = 1.05  # less of a difference is none
STRONG, WEAK = 0.5, 0.0  # of a rank correlation

ALL = []


def claim(identity, text):
    def register(evaluate):
        ALL.append({"id": identity, "text": text, "evaluate": evaluate})
        return evaluate
    return register


def of_ratio(ratio, least=1.0, margin=MARGIN):
    """Reproduced above, refuted below `least`; inconclusive so near to it that it may be noise."""
    if ratio >= least * margin:
        return REPRODUCED
    return REFUTED if ratio <= least / margin else OPEN


def of_correlation(value, wanted):
    if value is None:
        return NOT_MEASURED
    return REPRODUCED if value * wanted >= STRONG else REFUTED if value * wanted <= WEAK else OPEN


def nothing(what):
    return NOT_MEASURED, f"no figure of {what}"


@claim("map-beats-read", "Mapping guest memory beats reading it")
def map_beats_read(results):
    one, other = results.fastest("live-map"), results.fastest("live-read")
    rates = results.same_guest_rates(one, other) if one and other else None
    if not rates:
        return nothing("both live-map and live-read on one guest")
    return of_ratio(rates[0] / rates[1]), f"{rates[0]:.4g} and {rates[1]:.4g} views/s: {rates[0] / rates[1]:.2f} times"


@claim("map-is-fastest", "Live mapping gives the highest rate of all")
def map_is_fastest(results):
    name = results.fastest("live-map")
    others = [other for other in results.best if other != name]
    if not name or not others:
        return nothing("live-map and others")
    second = max(others, key=results.rate)
    ratio = results.rate(name) / results.rate(second)
    return of_ratio(ratio), f"{results.rate(name):.4g} views/s; next is {second} with {results.rate(second):.4g}"


@claim("rate-is-free", "A better rate does not cost more")
def rate_is_free(results):
    pairs = [(results.rate(name), results.cpu_per_hz(name)) for name in results.best]
    value = rank_correlation(pairs)
    if value is None:
        return nothing("three techniques")
    return of_correlation(value, -1), f"rank correlation of rate and CPU per Hz over {len(pairs)} techniques: {value:+.2f}"


@claim("halting-cpu-misleads", "The low CPU use of halting reads misleads: per view they cost more than live ones")
def halting_cpu_misleads(results):
    halting, live = results.fastest("halt-read"), results.fastest("live-read")
    if not halting or not live:
        return nothing("both halt-read and live-read")
    use = results.cpu(halting) / results.cpu(live)
    per_hz = results.cpu_per_hz(halting) / results.cpu_per_hz(live)
    figure = f"{halting} uses {use:.2f} times the CPU of {live} at maximum rate, and {per_hz:.2f} times per Hz"
    if use < 1 / MARGIN and per_hz > MARGIN:
        return REPRODUCED, figure
    return (REFUTED if per_hz < 1 / MARGIN or use > MARGIN else OPEN), figure


@claim("halt-read-beats-halt-snap", "Halting and reading beats halting and copying")
def halt_read_beats_halt_snap(results):
    one, other = results.fastest("halt-map", "halt-read"), results.fastest("halt-snap")
    if not one or not other:
        return nothing("both kinds")
    ratio = results.rate(one) / results.rate(other)
    return of_ratio(ratio), f"{one} {results.rate(one):.4g}, {other} {results.rate(other):.4g} views/s: {ratio:.1f} times"


@claim("halt-snap-doubles", "Halting snapshots more than double a web server's response times")
def halt_snap_doubles(results):
    found = [(results.slowdown(name, "web"), name) for name in results.techniques("halt-snap")]
    found = [(value["median"], value, name) for value, name in found if value]
    if not found:
        return nothing("halt-snap on the web server")
    median, value, name = min(found, key=lambda entry: entry[0])
    if value["q1"] >= 2:
        verdict = REPRODUCED
    else:
        verdict = REFUTED if value["q3"] < 2 else OPEN
    return verdict, f"{name}: {median:.2f} times the median response time (quartiles {value['q1']:.2f} to {value['q3']:.2f})"


@claim("live-is-gentle", "Live mapping and live reads disturb the guest least")
def live_is_gentle(results):
    impact = {name: results.worst_slowdown(name) for _, name in results.representatives()}
    impact = {name: value for name, value in impact.items() if value}
    gentle = [value for name, value in impact.items() if name.split(":")[0] in ("live-map", "live-read")]
    others = {name: value for name, value in impact.items() if name.split(":")[0] not in ("live-map", "live-read")}
    if not gentle or not others:
        return nothing("the impact of live and of other techniques")
    least = min(others, key=others.get)
    return (of_ratio(others[least] / max(gentle)),
            f"at most {max(gentle):.2f} times; the least of the others is {least} with {others[least]:.2f} times")


@claim("interfaces-are-slowest", "Access through the hypervisor's interfaces is the slowest")
def interfaces_are_slowest(results):
    interfaces = [name for name in (results.fastest("live-interface"), results.fastest("halt-interface")) if name]
    others = [name for entry, name in results.representatives() if "interface" not in entry.name]
    if not interfaces or not others:
        return nothing("an interface technique and others")
    best, slowest = max(interfaces, key=results.rate), min(others, key=results.rate)
    return (of_ratio(results.rate(slowest) / results.rate(best)),
            f"{best} {results.rate(best):.4g}; the slowest other is {slowest} with {results.rate(slowest):.4g} views/s")


@claim("live-snap-beats-halt-snap", "Live snapshots are faster than halting ones")
def live_snap_beats_halt_snap(results):
    one, other = results.fastest("live-snap"), results.fastest("halt-snap")
    if not one or not other:
        return nothing("both kinds of snapshot")
    ratio = results.rate(one) / results.rate(other)
    return of_ratio(ratio), f"{one} {results.rate(one):.4g}, {other} {results.rate(other):.4g} views/s: {ratio:.1f} times"


def ranking(results, squares, measured):
    pairs = [(squares(entry), measured(name)) for entry, name in results.representatives()]
    pairs = [pair for pair in pairs if pair[1] is not None]
    value = rank_correlation(pairs) if len(pairs) >= 5 else None
    if value is None:
        return nothing("five classes")
    return of_correlation(value, 1), f"rank correlation with the paper over {len(pairs)} classes: {value:+.2f}"


@claim("speed-ranking", "The paper's ranking of speed")
def speed_ranking(results):
    return ranking(results, lambda entry: entry.speed, results.rate)


@claim("cost-ranking", "The paper's ranking of host cost")
def cost_ranking(results):
    return ranking(results, lambda entry: entry.cost, results.cpu_per_hz)


@claim("impact-ranking", "The paper's ranking of impact on the guest")
def impact_ranking(results):
    return ranking(results, lambda entry: entry.impact, results.worst_slowdown)


def evaluate(results):
    answers = []
    for entry in ALL:
        verdict, figure = entry["evaluate"](results)
        answers.append({"id": entry["id"], "claim": entry["text"], "verdict": verdict, "figure": figure})
    return answers
