#!/usr/bin/env python3
"""watch_life.py KERNEL PART... - what happens to a `watch` while it runs: its rules change, it is asked, VMs come and go.

  rules      SIGHUP adds, changes and removes rules while another one stays armed with its counts; --status tells that;
             --dry-run arms nothing
  terminal   SIGHUP ends it when its terminal has gone
  actions    pause, snapshot, run, case and deny are taken where rule and command say so, and not otherwise; `doctor` shows a
             pause, which outlives watch, and `cont` ends it
  all        --all watches a VM that starts later, and says which one ended
  kills      SIGKILL at random moments leaves nothing armed
"""
import json
import os
import pty
import random
import signal
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import remains
from harness import VMSIGHT, Guest, expect, main, run, vmsight
from watch import PATIENCE, SECRET, Watch, settles, shell, start, watching

RUNTIME = Path("/run/vmsight") if os.geteuid() == 0 else Path(os.environ["XDG_RUNTIME_DIR"]) / "vmsight"
LISTENER = """
- rule: new listener
  desc: somebody listens
  state: {of: sockets, when: appeared, every: 500ms}
  condition: state == LISTEN and local_port == PORT
  output: "pid=%pid listens on port %local_port"
  priority: notice
"""
FORKS = """
- rule: forks
  desc: somebody makes a directory
  probe: kprobe:security_inode_mkdir
  output: "pid=%tgid makes a directory"
  priority: notice
"""


@contextmanager
def rules_of(*rules):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        write(file, *rules)
        yield file


def write(file, *rules):
    file.seek(0)
    file.truncate()
    file.write("".join(rules))
    file.flush()


def alarms(watch, rule):
    watch.read()
    return [alarm for alarm in watch.alarms if alarm["rule"] == rule]


def status(guest, watch):
    document = json.loads(vmsight("watch", "--status", guest.pid, "--json"))
    mine = [one for one in document["watches"] if one["pid"] == watch.process.pid]
    expect(len(mine) == 1 and len(mine[0]["vms"]) == 1, document)
    return mine[0], {rule["rule"]: rule for rule in mine[0]["vms"][0]["rules"]}


def opens_secret(guest, watch, times):
    shell(guest, "echo x > /tmp/secret; cat /tmp/secret")
    settles(lambda: len(alarms(watch, "opens secret")) == times, f"no alarm {times} of the probe", watch)


# ---- rules ----

def dry_run(guest, rules):
    """What it says is what is armed later, and the VM is as it was."""
    before = remains.settings(guest)
    text = vmsight("watch", guest.pid, "--rules", rules.name, "--dry-run")
    expect("do_sys_openat2" in text and "costs the guest" in text and "one reading of the state took" in text, text)
    plan = json.loads(vmsight("watch", guest.pid, "--rules", rules.name, "--dry-run", "--json"))["vms"][0]
    expect(remains.settings(guest) == before, remains.difference(before, remains.settings(guest)))
    expect(not remains.of_process(guest.pid), remains.of_process(guest.pid))
    planned = {rule["rule"]: rule for rule in plan["rules"]}
    expect(planned["opens secret"]["sites"][0]["site"] == "do_sys_openat2", planned)
    expect(planned["new listener"]["parts"] == ["processes", "sockets"], planned)
    expect(planned["new listener"]["every_ns"] == 500_000_000 and plan["reading"]["ns"] > 0, plan)
    return plan


def reload(watch, said):
    os.kill(watch.process.pid, signal.SIGHUP)
    settles(lambda: said in watch.said(), f"it does not say \"{said}\"", watch)


def changing_rules(guest):
    with rules_of(SECRET, LISTENER.replace("PORT", "4321")) as rules:
        plan = dry_run(guest, rules)
        with watching(guest, rules.name) as watch:
            opens_secret(guest, watch, 1)
            whole, told = status(guest, watch)
            expect(whole["alarms"] == 1 and whole["cpu_ns"] > 0 and whole["memory_bytes"] > 1 << 20, whole)
            expect(whole["vms"][0]["engine"] == plan["engine"]["name"], whole)
            secret, listener = told["opens secret"], told["new listener"]
            expect(secret["sites"] == ["do_sys_openat2"] and secret["state"] == "runs" and secret["alarms"] == 1, secret)
            expect(secret["judged"] == 1 and secret["hits"] > 1 and listener["looks"] > 0, told)
            text = vmsight("watch", "--status", guest.pid)
            expect("opens secret" in text and "do_sys_openat2" in text and f"pid {watch.process.pid}" in text, text)

            # One is added above it, one is changed, one stays with what it has counted.
            write(rules, FORKS, SECRET, LISTENER.replace("PORT", "4322"))
            reload(watch, "1 added, 1 changed, 0 removed, 1 as before")
            _, told = status(guest, watch)
            expect(told["forks"]["sites"] == ["security_inode_mkdir"], told)
            expect(told["opens secret"]["hits"] >= secret["hits"] and told["opens secret"]["alarms"] == 1, told)
            expect(told["new listener"]["alarms"] == 0, told)
            shell(guest, "mkdir /tmp/made")
            settles(lambda: len(alarms(watch, "forks")) == 1, "no alarm of the rule that was added", watch)
            old, new = start(guest, "nc -l -p 4321"), start(guest, "nc -l -p 4322")
            watch.wait("new listener", new)
            opens_secret(guest, watch, 2)
            expect(len(alarms(watch, "new listener")) == 1, f"{old} is told by the rule of before: {watch.alarms}")

            # A broken file changes nothing and says why.
            write(rules, FORKS, SECRET, "- rule: broken\n  desc: d\n")
            reload(watch, "the old ones run on")
            expect(f"{rules.name}:" in watch.said(), watch.said())
            opens_secret(guest, watch, 3)

            write(rules, SECRET)
            reload(watch, "0 added, 0 changed, 2 removed, 1 as before")
            _, told = status(guest, watch)
            expect(list(told) == ["opens secret"] and told["opens secret"]["alarms"] == 3, told)
            shell(guest, "mkdir /tmp/more")
            opens_secret(guest, watch, 4)
            expect(len(alarms(watch, "forks")) == 1, "a rule that was removed is still told")
            others_cannot_ask(watch)
            shell(guest, f"kill {old} {new}")
        done = run("watch", "--status", guest.pid)
        expect(done.returncode == 1 and b"watches" in done.stderr, done)


def others_cannot_ask(watch):
    socket = RUNTIME / f"watch-{watch.process.pid}.sock"
    expect(stat.S_IMODE(RUNTIME.stat().st_mode) == 0o700, "others may look into the directory")
    expect(stat.S_IMODE(socket.stat().st_mode) == 0o600, "others may ask")


def terminal(guest):
    """A watch reads its rules again at SIGHUP, and ends when that tells that its terminal has gone."""
    with rules_of(LISTENER.replace("PORT", "4321")) as rules, tempfile.TemporaryFile() as errors:
        pid, master = pty.fork()
        if pid == 0:
            os.dup2(errors.fileno(), 2)
            os.execv(VMSIGHT, [VMSIGHT, "watch", str(guest.pid), "--rules", rules.name])
        def said(text):
            return text in os.pread(errors.fileno(), 1 << 20, 0)
        def wait(what, condition):
            deadline = time.monotonic() + PATIENCE
            while not condition():
                expect(time.monotonic() < deadline, f"{what}: {os.pread(errors.fileno(), 1 << 20, 0)}")
                time.sleep(0.05)
        wait("it does not begin", lambda: said(b"Ctrl-C ends"))
        os.kill(pid, signal.SIGHUP)
        wait("it does not read its rules again", lambda: said(b"0 added, 0 changed, 0 removed, 1 as before"))
        os.close(master)
        ended = []
        wait("it outlives its terminal", lambda: ended.append(os.waitpid(pid, os.WNOHANG)) or ended[-1][0] == pid)
        expect(ended[-1][1] == 0, f"status {ended[-1][1]}")


# ---- actions ----

def acting(*actions):
    return SECRET + f"  action: {json.dumps(list(actions))}\n"


def run_state(guest):
    with guest.qmp() as qmp:
        return qmp.command("query-status")["status"]


def not_allowed(guest, folder):
    with rules_of(acting("pause", "snapshot", f"run touch {folder}/ran", "case")) as rules, watching(guest, rules.name) as watch:
        for action in ("pause", "snapshot", "run touch"):
            expect(f'its action "{action}' in watch.said(), f"{action} is not said beforehand: {watch.said()}")
        expect("--cases names no directory" in watch.said(), watch.said())
        opens_secret(guest, watch, 1)
        opens_secret(guest, watch, 2)
        expect(watch.said().count("--allow pause") == 1, "it is said at each alarm")
        expect(run_state(guest) == "running", "it is paused though nobody allowed it")
    expect(not os.path.exists(f"{folder}/ran"), "a command was run that nobody allowed")


def case_is_whole(guest, folder):
    """Alarm, state, log, stacks and core; what it says of the process is so."""
    with rules_of(acting("case core", f"run cat > {folder}/ran")) as rules, \
            watching(guest, rules.name, "--cases", f"{folder}/cases", "--allow", "run") as watch:
        shell(guest, "mkfifo /tmp/hold; echo watched > /dev/kmsg; echo x > /tmp/secret")
        reader = start(guest, "cat /tmp/secret /tmp/hold")
        watch.wait("opens secret", reader)
        case = Path(alarms(watch, "opens secret")[0]["evidence"]["case"])
        settles(lambda: (case / "core").exists() and (case / "stacks").exists(), "the case is not whole", watch)
        settles(lambda: os.path.exists(f"{folder}/ran") and os.path.getsize(f"{folder}/ran"), "no command was run", watch)
    expect(sorted(path.name for path in case.iterdir()) == ["alarm.json", "core", "dmesg", "stacks", "state.json"], list(case.iterdir()))
    expect(all(path.stat().st_mode & 0o077 == 0 for path in [case, *case.iterdir()]), "others may read a case")
    alarm = json.loads((case / "alarm.json").read_text())
    expect(alarm["rule"] == "opens secret" and f"pid={reader} " in alarm["output"], alarm)
    expect(json.loads(Path(f"{folder}/ran").read_text())["output"] == alarm["output"], "the command got another alarm")
    processes = {one["pid"]: one for one in json.loads((case / "state.json").read_text())["processes"]}
    expect(processes[reader]["comm"] == "cat", processes.get(reader))
    expect("watched" in (case / "dmesg").read_text(), "the kernel log is not in it")
    stacks = (case / "stacks").read_text()
    expect(stacks.startswith(f"{reader} cat") and ("+0x" in stacks or "runs on a CPU" in stacks), stacks)
    expect(f"{reader} " in vmsight("ps", case / "core", "-o", "pid,comm", "--no-headers") + " ", "the core has another guest")
    shell(guest, f"kill {reader}")


def pauses(guest, folder):
    with rules_of(acting("pause", "snapshot")) as rules, \
            watching(guest, rules.name, "--cases", f"{folder}/cases", "--allow", "pause,snapshot") as watch:
        expect("will not be taken" not in watch.said(), watch.said())
        # The guest runs on for a moment after the call: what is to be found in it must not end in that.
        shell(guest, "test -p /tmp/hold || mkfifo /tmp/hold")
        start(guest, "sh -c 'sleep 0.3; exec cat /tmp/secret /tmp/hold'")
        settles(lambda: run_state(guest) == "paused", "it is not paused", watch)
        settles(lambda: alarms(watch, "opens secret"), "the alarm is not told", watch)
        evidence = alarms(watch, "opens secret")[0]["evidence"]
        expect(evidence["paused"] is True, evidence)
        settles(lambda: os.path.exists(evidence["snapshot"]), "no snapshot was taken", watch)
        expect("cat" in vmsight("ps", evidence["snapshot"], "-o", "comm"), "the snapshot has no cat")
        # Somebody lets it go on: the rule is armed again, and pauses it again.
        with guest.qmp() as qmp:
            qmp.command("cont")
        settles(lambda: status(guest, watch)[1]["opens secret"]["state"] == "runs"
                and status(guest, watch)[0]["vms"][0]["paused"] is False, "it is not armed again", watch)
        start(guest, "sh -c 'sleep 0.3; exec cat /tmp/secret /tmp/hold'")
        settles(lambda: len(alarms(watch, "opens secret")) == 2, "the second time is not told", watch)
        settles(lambda: run_state(guest) == "paused", "it is not paused again", watch)
    expect(run_state(guest) == "paused", "the end of watch let it go on")
    expect("nothing to undo" in vmsight("doctor", "--recover", guest.pid), "a pause on purpose is undone")
    vmsight("ps", guest.pid)
    expect(run_state(guest) == "paused", "a view let it go on")
    said = vmsight("doctor", guest.pid)
    expect('rule "opens secret"' in said and "paused it at 20" in said and "`cont`" in said, said)
    with guest.qmp() as qmp:
        qmp.command("cont")
    expect("opens secret" not in vmsight("doctor", guest.pid), "doctor shows a pause that is over")
    expect(not list(RUNTIME.glob(f"{guest.pid}-*")), "a record of it is left")
    guest.report()


DENIED = """
- rule: directory
  desc: nobody makes directories
  probe: kprobe:FUNCTION
  condition: comm == mkdir
  output: "pid=%tgid makes a directory"
  priority: error
  action: [deny]
"""


def refusing(guest, *functions):
    """Of both vCPUs at once, again and again; others than the condition names are let through."""
    for function in functions:
        with rules_of(DENIED.replace("FUNCTION", function)) as rules:
            with watching(guest, rules.name) as watch:
                expect("--allow deny is not given" in watch.said(), watch.said())
                expect("gone" in shell(guest, "mkdir /tmp/denied; rmdir /tmp/denied && echo gone"), "it is refused though nobody allowed it")
            with watching(guest, rules.name, "--allow", "deny", "--engine", "gdbstub") as watch:
                said = shell(guest, "mkdir /tmp/denied 2>&1; ls -d /tmp/denied 2>&1; touch /tmp/allowed && echo others")
                expect("Operation not permitted" in said and "No such file" in said and "others" in said, said)
                settles(lambda: len(alarms(watch, "directory")) == 1, "no alarm of what is refused", watch)
                expect(all(one["evidence"]["denied"] is True for one in watch.alarms), watch.alarms)
                many = "for i in $(seq 40); do mkdir /tmp/many-$i 2>/dev/null; done; true"
                start(guest, f"sh -c '{many}'")
                shell(guest, many)
                settles(lambda: len(alarms(watch, "directory")) == 81, "not all of 81 are told", watch)
                expect("many-" not in shell(guest, "ls /tmp"), "some were made")
            expect("there" in shell(guest, "mkdir /tmp/denied && rmdir /tmp/denied && echo there"), f"{function} is refused for ever")
            guest.report()
    with rules_of(DENIED.replace("FUNCTION", "do_exit")) as rules, \
            watching(guest, rules.name, "--allow", "deny", "--engine", "gdbstub") as watch:
        expect("will not be taken: do_exit does not return a signed number" in watch.said(), watch.said())
        shell(guest, "mkdir /tmp/denied && rmdir /tmp/denied")
        settles(lambda: alarms(watch, "directory"), "the rule itself does not run", watch)


def actions(guest):
    refusing(guest, "__x64_sys_mkdir", "security_inode_mkdir")
    with tempfile.TemporaryDirectory() as folder:
        not_allowed(guest, folder)
        case_is_whole(guest, folder)
        pauses(guest, folder)


# ---- VMs that come and go ----

class WatchAll(Watch):
    def __init__(self, rules):
        self.start("--all", "--rules", rules)


def all_vms(guest):
    with rules_of(LISTENER.replace("PORT", "4321")) as rules:
        watch = WatchAll(rules.name)
        try:
            watch.started()
            settles(lambda: f"(pid {guest.pid}) is watched" in watch.said(), "the one that runs is not watched", watch)
            with Guest(kernel="6.1-cloud", backend="memfd", name="watch-later") as later:
                settles(lambda: f"(pid {later.pid}) is watched" in watch.said(), "one that started later is not watched", watch)
                watch.wait("new listener", start(later, "nc -l -p 4321"))
                ended = later.pid
            settles(lambda: "watch-later" in watch.said().split("is watched")[-1], f"the end of {ended} is not said", watch)
            pid = start(guest, "nc -l -p 4321")
            watch.wait("new listener", pid)
            shell(guest, f"kill {pid}")
            watch.end()
        finally:
            watch.process.kill()
            watch.process.wait()


# ---- kills ----

def kills(guest, count=5, seed=1):
    chance = random.Random(seed)
    before = remains.settings(guest)
    with rules_of(SECRET, FORKS, LISTENER.replace("PORT", "4321")) as rules:
        killed = []
        for _ in range(count):
            watch = Watch(guest, rules.name)
            killed.append(watch.process.pid)
            time.sleep(chance.uniform(0, 2))
            watch.process.kill()
            watch.process.wait()
            deadline = time.monotonic() + PATIENCE
            while wrong := remains.of_process(guest.pid) or remains.difference(before, remains.settings(guest)):
                expect(time.monotonic() < deadline, f"killed, it left: {wrong}")
                time.sleep(0.05)
            shell(guest, "cat /tmp/secret; mkdir -p /tmp/again")
            expect("not undone" not in vmsight("doctor", "--recover", guest.pid), "something could not be undone")
    expect(not list(RUNTIME.glob(f"{guest.pid}-*")), "records are left")
    told = json.loads(vmsight("watch", "--status", "--json"))["watches"]
    expect(not [one for one in told if one["pid"] in killed], "one that was killed is still told")
    expect(not [pid for pid in killed if (RUNTIME / f"watch-{pid}.sock").exists()], "sockets are left")
    guest.report()


PARTS = {"rules": changing_rules, "terminal": terminal, "actions": actions, "all": all_vms, "kills": kills}


def test(kernel, *parts):
    with Guest(kernel=kernel, backend="memfd", cpus=2, name=f"watch-life-{os.getpid()}") as guest:
        shell(guest, "echo x > /tmp/secret")
        for part in parts or PARTS:
            begun = time.monotonic()
            PARTS[part](guest)
            print(f"{part}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(test)
