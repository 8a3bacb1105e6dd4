#!/usr/bin/env python3
"""bench/images.py [BUILD_DIR] - a state of a compressed 1 GiB dump takes at most twice the time of unpacking its pages."""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402

BOUND = 2.0


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
    worst = 0
    with tempfile.TemporaryDirectory(prefix="vmsight-bench-") as folder, \
         Guest(kernel="6.1-cloud", backend="memfd", cpus=2, mem="1G", name="bench-images") as guest:
        core = Path(folder) / "core"
        guest.puppet("workers 50")
        subprocess.run([build / "vmsight", "snapshot", str(guest.pid), core, "--consistent"], check=True,
                       stdout=subprocess.DEVNULL)
        for option in ("-c", "-l"):
            dump = Path(folder) / f"dump{option}"
            subprocess.run(["makedumpfile", option, core, dump], check=True, stdout=subprocess.DEVNULL)
            output = subprocess.run([build / "bench" / "image_bench", dump, "--json"], check=True,
                                    stdout=subprocess.PIPE).stdout
            one = json.loads(output)
            print(f"makedumpfile {option}: {one['pages']} pages, state {one['state_ms']:.1f} ms, unpacking them "
                  f"{one['unpack_ms']:.1f} ms: {one['ratio']:.2f} times (at most {BOUND})")
            worst = max(worst, one["ratio"])
    sys.exit(worst > BOUND)


if __name__ == "__main__":
    main()
