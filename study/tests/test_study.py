#!/usr/bin/python3
"""Statistics, claims, the journal and the page: what needs no guest."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "lab")]

import claims  # noqa: E402
import consistency  # noqa: E402
import figures  # noqa: E402
import impact  # noqa: E402
import observations  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
from journal import Journal  # noqa: E402
from results import Results, summarize  # noqa: E402
from taxonomy import CLASSES, class_of  # noqa: E402


def flat(value):
    return {"n": 1, "median": value, "q1": value, "q3": value, "mad": 0, "min": value, "max": value}


def measured(name, rate, cpu_per_hz):
    return {"technique": name, "wanted_rate": None, "rate": rate, "round_rates": flat(rate), "reached": True, "views": 10, "missed": 0,
            "problems": 0, "processes": 1, "view_ns": flat(1e9 / rate), "pause_ns": flat(0), "bytes": flat(7e6), "pages": flat(1700),
            "own_cpu_ms_per_view": 1, "qemu_cpu_ms_per_view": None, "guest_cpu_ms_per_view": 0, "cpu_percent": cpu_per_hz * rate,
            "cpu_percent_per_hz": cpu_per_hz, "own_anonymous_peak_kib": 9000, "qemu_growth_kib": 0}


def document(techniques, slowdowns=()):
    rows = [{"name": name, "class": name.split(":")[0], "what": "", "cost": "", "usable": True, "reason": "", "hint": "",
             "measurements": [measured(name, *figure)]} for name, figure in techniques.items()]
    score = {"value": 1, "p99_ms": 9, "backlog": 1, "errors": 0, "requests": 5}
    impact = [summarize({"technique": name, "workload": workload, "rate": None, "guest": "memfd", "unit": "ms", "better": "less",
                         "pairs": [{"before": score, "run": score, "after": score, "slowdown": value, "cut_short": False,
                                    "loop": {"rate": 5}} for value in values]}) for name, workload, values in slowdowns]
    return {"schema": "vmsight.study/1", "kind": "quick", "time": "now", "impact": impact, "jitter": [], "claims": [], "guests": [{
        "backend": "memfd", "kernel": "6.1", "techniques": rows, "host": {"cores": 2, "cpu": "<cpu>", "kernel": "6"},
        "vm": {"vcpus": 1, "memory_bytes": 1 << 29, "accelerator": "tcg"}}]}


def verdict(identity, techniques, slowdowns=()):
    answers = claims.evaluate(Results(document(techniques, slowdowns)))
    return next(one["verdict"] for one in answers if one["id"] == identity)


class Figures(unittest.TestCase):
    def test_a_rate_out_of_reach_is_not_tried(self):
        class Load:
            name, what, unit, better = "load", "", "", "less"

            def prepare(self, guest):
                pass

            def calibrate(self, guest, seconds):
                return 1

            def run(self, guest, amount):
                return {"value": 1.0}

        plan = {"seconds": 1, "pairs": 1, "deadline": float("inf"), "best_rates": {"slow": 4.0}}
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder) / "pairs", False)
            entry, = impact.study("no program", None, "memfd", [Load()], ["slow"], [(10.0, None)], plan, journal, lambda text: None)
        self.assertEqual(entry["pairs"], [])
        self.assertEqual(summarize(entry)["error"], "not reached: 4 views/s at most")

    def test_spread(self):
        self.assertEqual(figures.spread([9, 1, 5, 3]), {"n": 4, "median": 4, "q1": 2.5, "q3": 6, "mad": 2, "min": 1, "max": 9})
        self.assertIsNone(figures.spread([]))

    def test_rank_correlation(self):
        self.assertAlmostEqual(figures.rank_correlation([(1, 10), (2, 100), (3, 1000)]), 1)
        self.assertAlmostEqual(figures.rank_correlation([(1, 9), (2, 5), (3, 1)]), -1)
        self.assertIsNone(figures.rank_correlation([(1, 1), (2, 2)]))
        self.assertIsNone(figures.rank_correlation([(1, 1), (2, 1), (3, 1)]))
        self.assertEqual(figures.ranks([5, 1, 5]), [2.5, 1, 2.5])

    def test_slowdown_is_more_when_worse(self):
        self.assertAlmostEqual(figures.slowdown(6, 2, 2, "less"), 3)    # seconds
        self.assertAlmostEqual(figures.slowdown(50, 100, 100, "more"), 2)  # MB/s
        self.assertAlmostEqual(figures.slowdown(4, 2, 8, "less"), 1)    # the host grew slower meanwhile

    def test_squares(self):
        self.assertEqual([figures.squares(value, 1, 1000, 4) for value in (1, 10, 100, 1000)], [1, 2, 3, 4])
        self.assertIsNone(figures.squares(None, 1, 10, 4))


class Held(unittest.TestCase):
    """What is held to a part of a core, and several VMs, are figures of their own."""

    def made(self):
        made = document({"live-map": (500, 1)}, [("live-map", "web", [1.2, 1.3])])
        held = dict(made["impact"][0], cpu=25.0, slowdown=flat(1.1), achieved_rate=120.0)
        made["impact"].insert(0, held)
        made["guests"][0]["techniques"][0]["measurements"].insert(0, dict(measured("live-map", 90, 1), held_to_cpu_percent=25.0))
        run = {"rates": [100.0, 90.0], "view_ms": [5, 6], "pause_share": 0, "missed": 0, "cpu_percent": 150, "seconds": 2}
        made["vms"] = [scaling.summarize({"technique": "live-map", "vms": 2, "rate": None, "guest": "memfd", "runs": [run], "error": None})]
        return made

    def test_they_are_not_taken_for_the_maximum(self):
        results = Results(self.made())
        self.assertEqual(results.rate("live-map"), 500)
        self.assertAlmostEqual(results.slowdown("live-map", "web")["median"], 1.25)
        self.assertAlmostEqual(results.worst_slowdown("live-map"), 1.25)

    def test_they_are_in_the_report(self):
        page = report.page(self.made(), report.pictures(Results(self.made())))
        self.assertIn("Held to a part of a core", page)
        self.assertIn("views /s, 25%", page)
        self.assertIn("Several VMs at once", page)
        self.assertIn("95 (92.5 – 97.5)", page)
        rows = list(report.rows_of(self.made()))
        self.assertEqual([row["cpu"] for row in rows if row.get("slowdown")], [25.0, ""])
        self.assertEqual([row["vms"] for row in rows if row.get("vms")], [2])

    def test_a_rate_that_one_of_them_did_not_reach(self):
        run = {"rates": [10.0, 5.0], "view_ms": [5, 6], "pause_share": 0, "missed": 9, "cpu_percent": 150, "seconds": 2}
        entry = {"technique": "live-map", "vms": 2, "rate": 10.0, "guest": "memfd", "runs": [run], "error": None}
        self.assertFalse(scaling.summarize(entry)["reached"])


class Claims(unittest.TestCase):
    def test_nothing_measured_nothing_claimed(self):
        self.assertEqual({one["verdict"] for one in claims.evaluate(Results(document({})))}, {claims.NOT_MEASURED})

    def test_ratios(self):
        for rates, wanted in (((500, 250), claims.REPRODUCED), ((250, 500), claims.REFUTED), ((101, 100), claims.OPEN)):
            found = verdict("map-beats-read", {"live-map": (rates[0], 1), "live-read": (rates[1], 1)})
            self.assertEqual(found, wanted)

    def test_rate_is_free(self):
        falling = {"live-map": (500, .1), "live-read": (200, .3), "halt-snap:copy": (20, 3)}
        rising = {"live-map": (500, 3), "live-read": (200, .3), "halt-snap:copy": (20, .1)}
        self.assertEqual(verdict("rate-is-free", falling), claims.REPRODUCED)
        self.assertEqual(verdict("rate-is-free", rising), claims.REFUTED)

    def test_halt_snap_doubles_by_its_quartiles(self):
        snap = {"halt-snap:copy": (20, 3)}
        for values, wanted in (([2.5, 3, 4], claims.REPRODUCED), ([1, 1.2, 1.5], claims.REFUTED), ([1, 2.1, 4], claims.OPEN)):
            self.assertEqual(verdict("halt-snap-doubles", snap, [("halt-snap:copy", "web", values)]), wanted)
        self.assertEqual(verdict("halt-snap-doubles", snap, [("halt-snap:copy", "x264", [9])]), claims.NOT_MEASURED)

    def test_halting_reads(self):
        self.assertEqual(verdict("halting-cpu-misleads", {"halt-read:ptrace": (10, 2), "live-read": (100, 1)}), claims.REPRODUCED)
        self.assertEqual(verdict("halting-cpu-misleads", {"halt-read:ptrace": (100, .5), "live-read": (100, 1)}), claims.REFUTED)

    def test_ranking_needs_five_classes(self):
        five = {"live-map": (500, 1), "live-read": (250, 2), "halt-map:ptrace": (200, 2), "halt-snap:copy": (20, 4), "live-interface:xp": (2, 4)}
        self.assertEqual(verdict("speed-ranking", five), claims.REPRODUCED)
        self.assertEqual(verdict("speed-ranking", dict(list(five.items())[:4])), claims.NOT_MEASURED)

    def test_every_class_has_its_technique(self):
        self.assertEqual(class_of("halt-read:stop"), class_of("halt-map"))
        self.assertEqual(len(CLASSES), 8)
        self.assertIsNone(class_of("file"))


class Files(unittest.TestCase):
    def test_journal_goes_on_after_a_cut(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal"
            Journal(path, False).keep({"a": 1}, "pair", "x", None, 0)
            with open(path, "a", encoding="utf-8") as out:
                out.write('{"key": ["pair"')
            again = Journal(path, True)
            self.assertEqual(again.get("pair", "x", None, 0), {"a": 1})
            again.keep(2, "other")
            self.assertEqual(Journal(path, True).get("other"), 2)
            self.assertIsNone(Journal(path, False).get("other"))

    def test_report_holds_all(self):
        whole = document({"live-map": (500, .1), "halt-snap:copy": (20, 3)}, [("live-map", "web", [1.1]), ("halt-snap:copy", "web", [3, 4])])
        whole["guests"][0]["techniques"].append({"name": "agent", "class": "agent", "usable": False, "reason": "no <agent>", "measurements": []})
        whole["claims"] = claims.evaluate(Results(whole))
        with tempfile.TemporaryDirectory() as folder:
            report.write(whole, Path(folder))
            page = (Path(folder) / "study.html").read_text()
            self.assertEqual(page.count("<svg"), 3)
            self.assertIn("no &lt;agent&gt;", page)
            self.assertNotIn("<cpu>", page)
            self.assertEqual(json.loads((Path(folder) / "study.json").read_text())["schema"], "vmsight.study/1")
            self.assertEqual(len((Path(folder) / "study.csv").read_text().splitlines()), 1 + 2 + 1 + 2)


def way(name, views=1000, records=0, pause=0.0, **kinds):
    """A row of the study of consistency: `records` of each class that is not given in `kinds`."""
    classes = {"extrinsic": ("list", "died", "changed"), "intrinsic": ("fresh", "zombie", "dying", "as-good-as-dead"),
               "contradictions": ("process without its parent",)}
    return {"way": name, "technique": name, "error": None, "views": views, "failed": 0, "processes": 100 * views, "view_ns": flat(1e6),
            "pause_ns": flat(pause), "intrinsic_lasted_ns": flat(1e6),
            **{kind: {what: {"views": min(kinds.get(kind, records), views), "records": kinds.get(kind, records)} for what in names}
               for kind, names in classes.items()}}


def run_of(*ways, churn="fork"):
    return {"kernel": "6.1", "churn": churn, "forks_a_second": 7, "ways": list(ways), "host": {"cores": 2, "cpu": "<cpu>", "kernel": "6"},
            "vm": {"vcpus": 2, "accelerator": "tcg"}}


class Observations(unittest.TestCase):
    def verdicts(self, *runs):
        return [one["verdict"] for one in observations.evaluate(list(runs))]

    def test_of_the_paper(self):
        run = run_of(way("naive", records=9), way("live", records=3), way("proven"), way("halted", intrinsic=3, pause=1e6), way("snapshot"))
        self.assertEqual(self.verdicts(run), [claims.REPRODUCED] * 6)

    def test_what_was_not_seen_has_a_bound(self):
        answers = observations.evaluate([run_of(way("live", views=3000), way("naive"), way("halted", pause=1e6))])
        self.assertEqual([one["verdict"] for one in answers[:2]], [claims.OPEN] * 2)
        self.assertIn("less than 0.001 of them", answers[0]["figure"])
        self.assertEqual(answers[5]["verdict"], claims.OPEN)

    def test_refuted(self):
        run = run_of(way("live", records=5000), way("halted", pause=0))
        self.assertEqual(self.verdicts(run)[2:5], [claims.REFUTED] * 3)

    def test_nothing_measured(self):
        self.assertEqual(self.verdicts(), [claims.NOT_MEASURED] * 6)
        self.assertEqual(self.verdicts(run_of(way("live", views=0) | {"error": "no way"})), [claims.NOT_MEASURED] * 6)

    def test_report(self):
        runs = [run_of(way("naive"), way("live", records=2), way("snapshot", views=0) | {"error": "no <way>"})]
        whole = {"time": "now", "options": {"views": 1000, "backend": "memfd"}, "runs": runs, "claims": observations.evaluate(runs)}
        with tempfile.TemporaryDirectory() as folder:
            consistency.write(whole, Path(folder))
            page = (Path(folder) / "consistency.html").read_text()
            self.assertIn("no &lt;way&gt;", page)
            self.assertNotIn("<cpu>", page)
            self.assertEqual(len((Path(folder) / "consistency.csv").read_text().splitlines()), 1 + 3 * (3 + 4 + 1))


if __name__ == "__main__":
    unittest.main()
