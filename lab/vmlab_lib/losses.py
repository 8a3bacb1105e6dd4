"""Guests that the emulator loses at their boot, which are booted again, and told (tests/run.sh names them)."""

import sys

from .errors import LabError

BOOT_ATTEMPTS = 3


def boot_again(name, boot, is_lost):
    """What boot() gives; a LabError of it that is_lost() says to be the emulator's fault is no end, but the last is."""
    for attempt in range(1, BOOT_ATTEMPTS + 1):
        try:
            return boot()
        except LabError as error:
            if attempt == BOOT_ATTEMPTS or not is_lost(error):
                raise
            print(f"lab: lost a guest at its boot: {name}, attempt {attempt}\n{error}", file=sys.stderr)
    raise AssertionError("not reached")
