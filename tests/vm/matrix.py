#!/usr/bin/env python3
"""The matrix of guests on which the truth is checked.

`matrix.py pairs` prints a set of cells in which every pair of values meets at least once (what CI
runs), `matrix.py kernels` one of those for each kernel (what `make check` runs),
`matrix.py all` every cell (what `make check-long` runs). A cell is printed as
KERNEL:MACHINE:BACKEND:MEMORY:PAGING.
"""
import itertools
import sys

KERNELS = ["5.10-cloud", "5.10", "5.10-rt", "6.1-cloud", "6.1", "6.1-rt",
           "6.12-cloud", "6.12", "6.12-rt", "7.2-cloud", "7.2", "7.2-rt"]
AXES = [KERNELS, ["pc", "q35"], ["anon", "memfd"], ["512M", "5G"], ["4level", "5level"]]

# Debian builds none of its 5.10 kernels with CONFIG_X86_5LEVEL: these cells cannot exist.
IMPOSSIBLE = [{"5.10-cloud", "5level"}, {"5.10", "5level"}, {"5.10-rt", "5level"}]


def possible(cell):
    return not any(pair <= set(cell) for pair in IMPOSSIBLE)


def all_cells():
    return [cell for cell in itertools.product(*AXES) if possible(cell)]


def pairs_of(cell):
    """Every two (axis, value) of a cell."""
    return set(itertools.combinations(enumerate(cell), 2))


def pairwise():
    """Greedy: always the cell that adds the most pairs not yet met; deterministic."""
    cells = all_cells()
    missing = set().union(*(pairs_of(cell) for cell in cells))
    chosen = []
    while missing:
        best = max(cells, key=lambda cell: len(pairs_of(cell) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen


def each_kernel():
    """One cell of each, in turn the first and the last: so that both values of the other axes are met often."""
    by_kernel = {kernel: [cell for cell in pairwise() if cell[0] == kernel] for kernel in KERNELS}
    return [cells[0 if number % 2 == 0 else -1] for number, cells in enumerate(by_kernel.values())]


if __name__ == "__main__":
    which = {"kernels": each_kernel, "pairs": pairwise, "all": all_cells}.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if which is None:
        sys.exit(__doc__)
    for chosen_cell in which():
        print(":".join(chosen_cell))
