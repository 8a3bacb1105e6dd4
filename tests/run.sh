#!/usr/bin/env bash
# Runs the tests of one build directory and prints CTest's own summary.
#
#   tests/run.sh BUILD_DIR [CTEST OPTIONS...]
#
# A test that was skipped or did not run fails the whole: a cell of the matrix that could not be
# checked is not a pass. VMSIGHT_ALLOW_SKIPS=1 lets a developer run on a machine that lacks parts.
#
# A test that fails is tried once more, because an emulated guest on a busy machine may be late or
# lost; its first failure is shown all the same, and named at the end. VMSIGHT_TRIES=1 forbids that.
set -uo pipefail
build=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

ctest --test-dir "$build" --output-on-failure --repeat "until-pass:${VMSIGHT_TRIES:-2}" "$@" | tee "$log"
status=${PIPESTATUS[0]}

failures=$(sed -nE 's/^ *([0-9]+\/[0-9]+ +)?Test +#[0-9]+: (.*[^.]) \.+[A-Za-z ]*\*\*\*(Failed|Timeout|Exception).*/\2/p' "$log" | sort | uniq -c)
if [ -n "$failures" ]; then
  printf '\nTests that failed, and how often (twice: not passed):\n%s\n' "$failures"
fi
if grep -q '^The following tests did not run:' "$log" && [ -z "${VMSIGHT_ALLOW_SKIPS:-}" ]; then
  echo "tests/run.sh: tests were skipped, see above; a required test that is skipped is a failure" >&2
  status=1
fi
if grep -qE 'ERROR: (Address|Leak)Sanitizer|: runtime error: ' "$log"; then
  echo "tests/run.sh: a sanitizer has found something, see above" >&2
  status=1
fi
if ! grep -qE '^100% tests passed, 0 tests failed out of [1-9]' "$log"; then
  status=1
fi
exit "$status"
