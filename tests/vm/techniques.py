"""Which guest a technique needs, and one guest for all that can have the same."""
from harness import Guest

SINCE_9 = {"live-snap:mapped-ram"}  # of QEMU


def options_of(technique):
    if technique in SINCE_9:
        return {"backend": "memfd", "qemu": "10.0"}
    return {"backend": "anon" if technique == "live-snap:fork" else "memfd"}


def on_their_guests(techniques, work, **options):
    """work(guest, technique), one guest after the other: what a technique leaves, the next one finds."""
    for wanted in {str(wanted): wanted for wanted in map(options_of, techniques)}.values():
        with Guest(**options, **wanted) as guest:
            for technique in techniques:
                if options_of(technique) == wanted:
                    work(guest, technique)
