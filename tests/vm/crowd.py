#!/usr/bin/env python3
"""crowd.py COUNT - the truth about a guest with many processes."""
from harness import Guest, check_truth, expect, main


def crowd(count="1000"):
    large = int(count) > 2000
    with Guest(kernel="6.1-cloud", backend="memfd", mem="3G" if large else "1G", cpus=2,
               name=f"crowd-{count}") as guest:
        guest.puppet(f"processes {count}" if large else f"workers {count}", timeout=300)
        document = check_truth(guest)
        expect(len(document["processes"]) >= int(count), f"only {len(document['processes'])} processes")


if __name__ == "__main__":
    main(crowd)
