#!/usr/bin/env bash
# Runs the tests of one build directory and prints CTest's own summary.
#
#   tests/run.sh BUILD_DIR [CTEST OPTIONS...]
#
# Each test runs once, and one that fails fails the whole. So does one that was skipped or did not
# run: a cell of the matrix that could not be checked is not a pass. VMSIGHT_ALLOW_SKIPS=1 lets a
# developer run on a machine that lacks parts.
#
# Only a guest that the lab lost at its boot, before anything of ours touched it, is booted again (by
# the lab itself); the tests in which that happened are named at the end, after the slowest.
set -uo pipefail
build=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

ctest --test-dir "$build" --output-on-failure "$@" | tee "$log"
status=${PIPESTATUS[0]}

printf '\nThe slowest tests, in seconds:\n'
sed -nE 's/^ *[0-9]+\/[0-9]+ +Test +#[0-9]+: (.*[^.]) \.+ *(\*\*\*)?[A-Za-z ]+ +([0-9.]+) sec.*/\3 \1/p' "$log" |
  sort -rn | head -15
lost=$(awk '/^[0-9]+\/[0-9]+ Test: /{name = substr($0, index($0, "Test: ") + 6)} /^lab: lost a guest/{print "  " name ": " $0}' \
  "$build/Testing/Temporary/LastTest.log" 2>/dev/null)
if [ -n "$lost" ]; then
  printf '\nGuests that the lab lost at their boot, and booted again:\n%s\n' "$lost"
fi
failures=$(awk '/^ +Start +[0-9]+: |^ *[0-9]+\/[0-9]+ +Test +#/{shown = /\*\*\*/ ? 1 : 0} shown && shown++ <= 40 {print "  " substr($0, 1, 400)}' "$log")
if [ -n "$failures" ]; then
  printf '\nWhat failed, and what it said (40 lines of each at most):\n%s\n' "$failures"
fi
if grep -q '^The following tests did not run:' "$log" && [ -z "${VMSIGHT_ALLOW_SKIPS:-}" ]; then
  echo "tests/run.sh: tests were skipped, see above; a required test that is skipped is a failure" >&2
  status=1
fi
if grep -qE 'ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|: runtime error: ' "$log"; then
  echo "tests/run.sh: a sanitizer has found something, see above" >&2
  status=1
fi
if ! grep -qE '^100% tests passed, 0 tests failed out of [1-9]' "$log"; then
  status=1
fi
exit "$status"
