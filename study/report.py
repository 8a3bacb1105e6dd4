"""The report: study.json, study.csv, and study.html, which holds its charts itself."""

import csv
import html
import json

import charts
from figures import squares
from results import Results
from taxonomy import CLASSES, MOST, class_of

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; font-size: 1.25rem; }
p.facts { color: #555; margin-top: 0; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; margin: .8rem 0; }
th { text-align: left; border-bottom: 2px solid #333; vertical-align: bottom; } td { border-bottom: 1px solid #ddd; vertical-align: top; }
th, td { padding: .3rem .5rem; } td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; } figure svg { width: 100%; height: auto; } figcaption { color: #555; font-size: .86rem; }
.v { font-weight: 600; white-space: nowrap; } .reproduced { color: #00634a; } .refuted { color: #a33f00; } .other { color: #666; }
.squares { letter-spacing: 1px; white-space: nowrap; } .faint { color: #777; }
"""
COLUMNS = ["technique", "class", "guest", "vms", "wanted_rate", "cpu", "rate", "reached", "view_ms", "view_ms_mad", "pause_ms", "pause_ms_mad", "pages",
           "bytes", "own_cpu_ms", "qemu_cpu_ms", "guest_cpu_ms", "cpu_percent", "cpu_percent_per_hz", "own_anonymous_mib",
           "qemu_growth_mib", "workload", "pairs", "slowdown", "slowdown_q1", "slowdown_q3", "at_least", "note"]


def write(document, folder):
    (folder / "study.json").write_text(json.dumps(document, indent=1) + "\n")
    with open(folder / "study.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows_of(document))
    drawn = pictures(Results(document))
    (folder / "study.html").write_text(page(document, drawn))
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text('<?xml version="1.0" encoding="utf-8"?>\n' + picture)


def rows_of(document):
    """One a measurement of a technique, then one a workload that it was watching."""
    for guest in document["guests"]:
        for row in guest["techniques"]:
            head = {"technique": row["name"], "class": row["class"], "guest": guest["backend"]}
            if not row["usable"]:
                yield head | {"note": row["reason"]}
            for one in row["measurements"]:
                yield head | measured_row(one)
    for entry in document["impact"]:
        spread = entry["slowdown"] or {}
        yield {"technique": entry["technique"], "class": entry["technique"].split(":")[0], "guest": entry["guest"],
               "wanted_rate": entry["rate"] or "max", "cpu": entry.get("cpu") or "", "rate": entry["achieved_rate"], "reached": entry["reached"],
               "workload": entry["workload"], "pairs": spread.get("n", 0), "slowdown": spread.get("median"),
               "slowdown_q1": spread.get("q1"), "slowdown_q3": spread.get("q3"), "at_least": entry["at_least"],
               "note": entry["error"] or ""}


    for entry in document.get("vms", []):
        yield {"technique": entry["technique"], "class": entry["technique"].split(":")[0], "guest": entry["guest"], "vms": entry["vms"],
               "wanted_rate": entry["rate"] or "max", "rate": (entry["each"] or {}).get("median"), "reached": entry["reached"],
               "view_ms": (entry["view_ms"] or {}).get("median"), "pairs": len(entry["runs"]), "note": entry["error"] or ""}


def measured_row(one):
    row = {"wanted_rate": one["wanted_rate"] or "max", "cpu": one.get("held_to_cpu_percent") or ""}
    if "error" in one:
        return row | {"note": one["error"]}
    return row | {"rate": one["rate"], "reached": one["reached"], "view_ms": one["view_ns"]["median"] / 1e6,
                  "view_ms_mad": one["view_ns"]["mad"] / 1e6, "pause_ms": one["pause_ns"]["median"] / 1e6,
                  "pause_ms_mad": one["pause_ns"]["mad"] / 1e6, "pages": one["pages"]["median"], "bytes": one["bytes"]["median"],
                  "own_cpu_ms": one["own_cpu_ms_per_view"], "qemu_cpu_ms": one["qemu_cpu_ms_per_view"],
                  "guest_cpu_ms": one["guest_cpu_ms_per_view"], "cpu_percent": one["cpu_percent"],
                  "cpu_percent_per_hz": one["cpu_percent_per_hz"], "own_anonymous_mib": one["own_anonymous_peak_kib"] / 1024,
                  "qemu_growth_mib": one["qemu_growth_kib"] / 1024}


# ---- pictures ----

def family(technique):
    entry = class_of(technique)
    return entry.name if entry else ""


def ordered(results):
    """By the paper's classes, the fastest of each first."""
    places = [entry.name for entry in CLASSES]
    return sorted(results.best, key=lambda name: (places.index(family(name)) if family(name) else 99, -results.rate(name)))


def pictures(results):
    names = sorted(results.best, key=results.rate, reverse=True)
    drawn = {}
    if names:
        drawn["frequency"] = charts.frequency([
            (name, family(name), results.rate(name), results.best[name]["round_rates"]["q1"], results.best[name]["round_rates"]["q3"], "")
            for name in names])
        drawn["cost"] = charts.cost([(name, family(name), results.cpu_per_hz(name), None, None, "") for name in names])
    unheld = [entry for entry in results.document["impact"] if not entry.get("cpu")]
    for workload, rate in sorted({(entry["workload"], entry["rate"]) for entry in unheld}, key=lambda pair: (pair[0], pair[1] or 0)):
        entries = {entry["technique"]: entry for entry in unheld if (entry["workload"], entry["rate"]) == (workload, rate)}
        rows = [impact_bar(name, entries[name]) for name in ordered(results) if name in entries]
        if rows:
            what = f"at {rate:g} views/s" if rate else "at its own maximum rate"
            drawn[f"impact-{workload}-{f'{rate:g}' if rate else 'max'}"] = charts.impact(rows, workload, what)
    return drawn


def impact_bar(name, entry):
    spread = entry["slowdown"]
    if not spread:
        return name, family(name), None, None, None, entry["error"] or "no pair was finished in time"
    note = ("≥ " if entry["at_least"] else "") + ("" if entry["reached"] else "(rate not reached) ")
    return name, family(name), spread["median"], spread["q1"], spread["q3"], note


# ---- the page ----

def text(value):
    return html.escape(str(value))


def number(value, digits=3):
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def table(headers, rows, numeric=()):
    head = "".join(f'<th class="{"n" if i in numeric else ""}">{text(name)}</th>' for i, name in enumerate(headers))
    body = "".join("<tr>" + "".join(f'<td class="{"n" if i in numeric else ""}">{cell}</td>' for i, cell in enumerate(row)) + "</tr>"
                   for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def boxes(count):
    return f'<span class="squares">{"■" * count}</span>' if count else "–"


def yes(value):
    return "yes" if value else "no"


def class_table(results):
    """The paper's squares beside ours, which come from the same measure for all classes."""
    chosen = dict((entry.name, name) for entry, name in results.representatives())
    rates = [results.rate(name) for name in chosen.values()]
    costs = [results.cpu_per_hz(name) for name in chosen.values()]
    impacts = [value for value in map(results.worst_slowdown, chosen.values()) if value]
    rows = []
    for entry in CLASSES:
        name = chosen.get(entry.name)
        head = [text(entry.title), yes(entry.live), yes(entry.consistent)]
        if not name:
            rows.append(head + [boxes(entry.speed), "–", boxes(entry.cost), "–", boxes(entry.impact), "–",
                                f'<span class="faint">{text(why_not(results.document, entry))}</span>'])
            continue
        worst = results.worst_slowdown(name)
        impact = boxes(squares(worst, min(impacts), max(impacts), MOST["impact"])) if worst else "–"
        rows.append(head + [
            boxes(entry.speed), f"{boxes(squares(results.rate(name), min(rates), max(rates), MOST['speed']))} {number(results.rate(name))}/s",
            boxes(entry.cost), f"{boxes(squares(results.cpu_per_hz(name), min(costs), max(costs), MOST['cost']))} {number(results.cpu_per_hz(name))} %/Hz",
            boxes(entry.impact), f"{impact} {number(worst)}×" if worst else "–", f"<code>{text(name)}</code>"])
    return table(["Class", "live", "consistent", "speed: paper", "measured", "host cost: paper", "measured", "guest impact: paper", "measured",
                  "technique measured"], rows)


def why_not(document, entry):
    """Why there is no figure of a class."""
    for guest in document["guests"]:
        for row in guest["techniques"]:
            if row["class"] not in entry.members:
                continue
            failed = [one["error"] for one in row["measurements"] if "error" in one]
            if failed or row["reason"]:
                return f"{row['name']}: {failed[0] if failed else row['reason']}"
    return "no technique of this class was asked for"


def claim_table(answers):
    kinds = {"reproduced": "reproduced", "refuted": "refuted"}
    return table(["The paper's claim", "Verdict", "Figure"],
                 [[text(one["claim"]), f'<span class="v {kinds.get(one["verdict"], "other")}">{text(one["verdict"])}</span>', text(one["figure"])]
                  for one in answers])


def measurement_table(document):
    gaps = {entry["technique"]: entry for entry in document["jitter"]}
    rows = []
    for row in rows_of({"guests": document["guests"], "impact": []}):
        note = "" if row.get("reached", True) else "rate not reached"
        if "rate" not in row:
            rows.append([f"<code>{text(row['technique'])}</code>", text(row["guest"]), text(pace_of(row)), *["–"] * 10,
                         text(row["note"])])
            continue
        gap = gaps.get(row["technique"]) if row["wanted_rate"] == "max" and not row["cpu"] else None
        seen = f"{number(gap['gap_ms'])} ({number(gap['idle_gap_ms'])})" if gap and gap["gap_ms"] else "–"
        rows.append([f"<code>{text(row['technique'])}</code>", text(row["guest"]), text(pace_of(row)), number(row["rate"]),
                     f"{number(row['view_ms'])} ± {number(row['view_ms_mad'], 2)}", f"{number(row['pause_ms'])} ± {number(row['pause_ms_mad'], 2)}",
                     seen, number(row["pages"], 4), number(row["own_cpu_ms"]), number(row["qemu_cpu_ms"]), number(row["guest_cpu_ms"]),
                     number(row["cpu_percent_per_hz"]), number(row["own_anonymous_mib"]) + " + " + number(row["qemu_growth_mib"]), note])
    return table(["Technique", "RAM", "wanted /s", "views /s", "view ms", "pause ms", "guest's clock: gap ms (unwatched)", "pages", "own CPU ms",
                  "QEMU CPU ms", "vCPU ms", "CPU %/Hz", "memory MiB, own + QEMU", ""], rows, numeric=range(2, 13))


def pace_of(row):
    return f"{row.get('wanted_rate', '')}" + (f", {row['cpu']:g}% CPU" if row.get("cpu") else "")


def allotment_table(document):
    """What a watcher achieves, and costs the guest, that is held to a part of a core."""
    by_way = {}
    for entry in document["impact"]:
        if entry["rate"] is None:
            by_way.setdefault((entry["technique"], entry["workload"]), {})[entry.get("cpu")] = entry
    rows = []
    parts = sorted({cpu for ways in by_way.values() for cpu in ways if cpu})
    for (technique, workload), ways in by_way.items():
        if len(ways) == 1:
            continue
        cells = []
        for cpu in [*parts, None]:
            entry = ways.get(cpu) or {}
            impact = entry.get("slowdown")
            cells += [number(entry.get("achieved_rate")),
                      f"{'≥ ' if entry['at_least'] else ''}{number(impact['median'])} ({number(impact['q1'])} – {number(impact['q3'])})"
                      if impact else text(entry.get("error") or "–")]
        rows.append([f"<code>{text(technique)}</code>", text(workload), *cells])
    if not rows:
        return ""
    heads = [head for cpu in [*parts, None] for head in (f"views /s, {f'{cpu:g}%' if cpu else 'all'}", "times as bad (quartiles)")]
    return ("<h2>Held to a part of a core</h2>" + table(["Technique", "workload", *heads], rows, numeric=range(2, 2 + len(heads)))
            + '<p class="faint">At maximum rate, by a control group with a quota for each 100 ms. Whoever halts the guest and used up '
              "his share lets it stand until he gets the next one.</p>")


def vms_table(document):
    rows = []
    for entry in document.get("vms", []):
        each, together = entry["each"], entry["all"]
        cpu = [run["cpu_percent"] for run in entry["runs"]]
        rows.append([f"<code>{text(entry['technique'])}</code>", text(entry["guest"]), f"{entry['rate']:g}" if entry["rate"] else "max",
                     entry["vms"], f"{number(each['median'])} ({number(each['q1'])} – {number(each['q3'])})" if each else "–",
                     number(together["median"]) if together else "–", number(entry["view_ms"]["median"]) if each else "–",
                     number(sorted(cpu)[len(cpu) // 2]) if cpu else "–", len(entry["runs"]),
                     text(entry["error"] or ("" if entry["reached"] else "rate not reached"))])
    if not rows:
        return ""
    return ("<h2>Several VMs at once</h2>" + table(["Technique", "RAM", "wanted /s", "VMs", "views /s of each (quartiles)", "of all", "view ms",
                                                    "own CPU %", "runs", ""], rows, numeric=range(2, 9))
            + '<p class="faint">A monitor for each VM, on idle guests. CPU: of all monitors together, percent of a core.</p>')


def impact_table(document):
    rows = []
    for entry in document["impact"]:
        spread = entry["slowdown"]
        runs = [pair for pair in entry["pairs"] if "run" in pair]
        extra = ""
        if entry["workload"] == "web" and runs:
            worst = max(runs, key=lambda pair: pair["run"]["p99_ms"])
            extra = (f"p99 {number(worst['run']['p99_ms'])} ms ({number(worst['before']['p99_ms'])}), backlog {worst['run']['backlog']} "
                     f"({worst['before']['backlog']}), errors {sum(pair['run']['errors'] for pair in runs)} of "
                     f"{sum(pair['run']['requests'] for pair in runs)}")
        rows.append([f"<code>{text(entry['technique'])}</code>", text(entry["workload"]), text(pace_of({"wanted_rate": f"{entry['rate']:g}" if entry["rate"] else "max", "cpu": entry.get("cpu")})),
                     number(entry["achieved_rate"]) + ("" if entry["reached"] else " (not reached)"),
                     (("≥ " if entry["at_least"] else "") + number(spread["median"])) if spread else "–",
                     f"{number(spread['q1'])} – {number(spread['q3'])}" if spread else "–", spread["n"] if spread else 0,
                     text(entry["error"] or "") + extra])
    return table(["Technique", "workload", "wanted /s", "views /s", "times as bad", "quartiles", "pairs", "note (unwatched in brackets)"],
                 rows, numeric=range(2, 7))


CAPTIONS = {
    "frequency": "Maximum monitoring frequency: whole states a second, read one after the other.",
    "cost": "Host CPU, ours and that of QEMU's threads other than vCPUs, normalised by the rate: what a view costs.",
}


def facts(document):
    if not document["guests"]:
        return "No guest was measured."
    guest, host = document["guests"][0]["vm"], document["guests"][0]["host"]
    backends = " and ".join(one["backend"] for one in document["guests"])
    return (f"{document['kind']} study of {document['time']}; host: {host['cores']} cores, {host['cpu'] or 'CPU not named'}, Linux {host['kernel']}; "
            f"guest: Linux {document['guests'][0]['kernel']}, {guest['vcpus']} vCPU, {guest['memory_bytes'] >> 20} MiB ({backends} RAM), "
            f"{guest['accelerator']}. Took {document.get('seconds', 0):.0f} s.")


def page(document, drawn):
    results = Results(document)
    figures = "".join(f"<figure>{picture}<figcaption>{text(CAPTIONS.get(name, 'Impact on the guest: each watched run beside the unwatched ones right before and after it; 1 is none.'))}</figcaption></figure>"
                      for name, picture in drawn.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>vmsight: techniques compared</title><style>{STYLE}</style></head><body>
<h1>Techniques of introspection, compared</h1>
<p class="facts">{text(facts(document))}</p>
<p>The evaluation of Suneja et al., <em>Exploring VM Introspection: Techniques and Trade-offs</em> (VEE 2015), repeated on stock QEMU. All
figures were measured in one run on one host; compare them with one another, not with those of other hosts.</p>
<h2>The paper's claims</h2>{claim_table(document["claims"])}
<h2>Eight classes: the paper's ranking and ours</h2>{class_table(results)}
<p class="faint">Each class is shown by its fastest technique. Measured squares divide the range between the least and the most of all classes by
equal ratios; more squares are more speed, more cost, more impact (the worst of the workloads, at the technique's own maximum rate).</p>
<h2>Charts</h2>{figures}
<h2>All techniques</h2>{measurement_table(document)}
<p class="faint">Medians ± median absolute deviation. Pause: as the host saw it, of one view. The guest's clock: largest gap that a loop in the
guest saw while it was watched 10 times a second. vCPU ms: what the guest's own CPUs worked more for a view.</p>
<h2>Impact on workloads</h2>{impact_table(document)}
{allotment_table(document)}{vms_table(document)}
</body></html>
"""
