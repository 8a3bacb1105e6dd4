#!/usr/bin/env bash
# Runs the tests of one build directory and prints CTest's own summary.
#
#   tests/run.sh BUILD_DIR [--resume] [CTEST OPTIONS...]
#
# Which tests have passed is kept for the sources as they are; --resume leaves those out, so that a
# run of hours can be done in parts.
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

sources=$({ git rev-parse HEAD && git diff HEAD; } 2>/dev/null | sha256sum | cut -c1-16)
passed=$build/Testing/passed-$sources
mkdir -p "$build/Testing"
if [ "${1:-}" = --resume ]; then
  shift
  git rev-parse HEAD > /dev/null || { echo "tests/run.sh: --resume needs git to know the sources" >&2; exit 2; }
  touch "$passed"
  numbers=$(ctest --test-dir "$build" -N "$@" | sed -nE 's/^ *Test +#([0-9]+): (.*)$/\1 \2/p' |
    awk 'NR == FNR {done[$0]; next} {number = $1; sub(/^[0-9]+ /, "")} !($0 in done) {printf ",%s", number}' "$passed" -)
  printf '%s tests of these sources passed before\n' "$(sort -u "$passed" | wc -l)"
  [ -n "$numbers" ] || exit 0
  others=()  # numbers would be counted among what a filter leaves
  while [ $# -gt 0 ]; do
    case $1 in
      -L | -LE | -R | -E) shift ;;
      *) others+=("$1") ;;
    esac
    shift
  done
  set -- ${others[@]+"${others[@]}"} -I "0,0,0$numbers"
else
  rm -f "$passed"
fi

ctest --test-dir "$build" --output-on-failure "$@" | tee "$log" >(
  sed -unE 's/^ *[0-9]+\/[0-9]+ +Test +#[0-9]+: (.*[^. ]) \.+ +Passed .*/\1/p' >> "$passed")
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
