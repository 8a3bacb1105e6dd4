#!/bin/sh
# Boots a stock Debian guest and shows it from outside, beside the guest's own answers.
#
#   packaging/demo.sh PROGRAM
set -eu
vmsight=$1
root=$(cd "$(dirname "$0")/.." && pwd)
vmlab=$root/lab/vmlab
name=demo-$$

answers=$(mktemp)
cleanup() {
  rm -f "$answers"
  "$vmlab" stop "$name" >/dev/null 2>&1 || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# One question, asked from outside and inside.
beside() {
  lines=$1 outside=$2 inside=$3
  title "from outside:  vmsight $outside"
  # shellcheck disable=SC2086
  "$vmsight" $outside >"$answers" || exit 1
  head -n "$lines" "$answers" | cut -c1-120
  title "the guest's own answer:  $inside"
  "$vmlab" puppet "$name" sh "$inside" >"$answers" || exit 1
  # The guest has processes with escape sequences in their names: not for this terminal.
  head -n "$lines" "$answers" | tr '\001-\010\013-\037\177' '?' | cut -c1-120
}

title "booting a stock Debian guest (its kernel is fetched the first time)"
"$vmlab" boot 6.1-cloud --name "$name" --backend memfd --net
"$vmlab" puppet "$name" reference >/dev/null

title "the VMs on this host:  vmsight list"
"$vmsight" list
beside 1 "uname $name -a" "uname -a"
beside 12 "ps $name --sort -pid" "ps -o pid,ppid,user,args | sort -rn | head -12"
beside 8 "lsof $name -p 1" "ls -l /proc/1/fd"
beside 10 "ss $name -ltn" "netstat -ltn"
beside 8 "ip $name addr eth0" "ip addr show eth0"
beside 6 "lsmod $name" "lsmod"
beside 6 "dmesg $name" "dmesg | head -6"

title "how fast:  vmsight info $name"
"$vmsight" info "$name"
title "the whole state:  vmsight state $name"
"$vmsight" state "$name"
