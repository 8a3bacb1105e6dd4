"""What was measured, asked for by name. The study's document (schema vmsight.study/1) holds:

    guests[]      one a backend: what `vmsight study techniques` said of it
    impact[]      {workload, technique, rate|null, cpu|null, guest, pairs[], slowdown{}, better, unit}
    vms[]         {technique, vms, rate|null, guest, runs[], each{}, all{}, view_ms{}}: several VMs at once
    jitter[]      {technique, rate, guest, gap_ms{}, idle_gap_ms{}}
"""

from figures import spread
from taxonomy import CLASSES


def is_most(measured):
    """A figure at maximum rate, with all of the host."""
    return measured["wanted_rate"] is None and not measured.get("held_to_cpu_percent") and "error" not in measured


class Results:
    def __init__(self, document):
        self.document = document
        self.best = {}  # technique: its measurement at maximum rate, of the first guest that has one
        for guest in document["guests"]:
            for row in guest["techniques"]:
                for measured in row["measurements"]:
                    if is_most(measured):
                        self.best.setdefault(row["name"], measured)

    def techniques(self, *heads):
        return [name for name in self.best if name.split(":")[0] in heads]

    def rate(self, technique):
        return self.best[technique]["rate"]

    def cpu_per_hz(self, technique):
        return self.best[technique]["cpu_percent_per_hz"]

    def cpu(self, technique):
        return self.best[technique]["cpu_percent"]

    def fastest(self, *heads):
        """The best technique of these classes, None if none was measured."""
        return max(self.techniques(*heads), key=self.rate, default=None)

    def same_guest_rates(self, one, other):
        """Maximum rates of two techniques on one guest, the first that has both; else None."""
        for guest in self.document["guests"]:
            rates = {row["name"]: measured["rate"] for row in guest["techniques"] for measured in row["measurements"]
                     if is_most(measured)}
            if one in rates and other in rates:
                return rates[one], rates[other]
        return None

    def slowdown(self, technique, workload, rate=None):
        """The spread, None if it was not measured."""
        for entry in self.document["impact"]:
            if (entry["technique"], entry["workload"], entry["rate"], entry.get("cpu")) == (technique, workload, rate, None):
                return entry["slowdown"]
        return None

    def worst_slowdown(self, technique, rate=None):
        """Of all workloads, the largest median."""
        medians = [entry["slowdown"]["median"] for entry in self.document["impact"]
                   if entry["technique"] == technique and entry["rate"] == rate and not entry.get("cpu") and entry["slowdown"]]
        return max(medians, default=None)

    def representative(self, entry):
        """The technique that stands for a class of the paper: its fastest."""
        return self.fastest(*entry.members)

    def representatives(self):
        found = ((entry, self.representative(entry)) for entry in CLASSES)
        return [(entry, name) for entry, name in found if name]


def summarize(entry):
    """Adds what follows from the pairs."""
    entry["slowdown"] = spread([pair["slowdown"] for pair in entry["pairs"] if pair.get("slowdown")])
    entry["at_least"] = any(pair.get("cut_short") for pair in entry["pairs"])
    entry["achieved_rate"] = (spread([pair["loop"]["rate"] for pair in entry["pairs"] if pair.get("loop")]) or {}).get("median")
    entry["reached"] = entry["rate"] is None or (entry["achieved_rate"] or 0) >= 0.95 * entry["rate"]
    errors = [pair["error"] for pair in entry["pairs"] if pair.get("error")]
    entry["error"] = errors[0] if errors and not entry["slowdown"] else None
    if "out_of_reach" in entry:
        entry["error"] = f"not reached: {entry['out_of_reach']:.2g} views/s at most"
    return entry
