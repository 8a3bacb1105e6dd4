#!/bin/sh
# Prints the man page: vmsight.1.in with a section on each verb, made from its --help.
#
#   packaging/man.sh PROGRAM > vmsight.1
set -eu
program=$1
here=$(dirname "$0")
date=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%d)
version=$("$program" --version | cut -d' ' -f2)

# The help of a verb as troff: "Usage:" and the summary, "Group:" lines, two-column entries.
# `part` is "common" for the options that verbs share, else what is the verb's own. Descriptions may
# have more lines, and begin with what troff would take for a request.
verb() {
  "$program" "$1" --help | sed 's/\\/\\e/g; s/-/\\-/g' | awk -v verb="$1" -v part="$2" '
    function say(text) { print (text ~ /^[.\047]/ ? "\\&" : "") text }
    /^[A-Z].*:$/ { common = /^Common options:$/ }
    common != (part == "common") || /^Common options:$/ || /^$/ { next }
    NR == 1 { sub(/^Usage: /, ""); print ".SS " verb; print ".B " $0; next }
    NR == 3 { print ".PP"; print; next }
    /^Examples:$/ { print ".PP"; print "Examples:"; print ".nf"; print ".RS"; examples = 1; next }
    examples { sub(/^ +/, ""); print; next }
    /^[A-Z].*:$/ { print ".PP"; print ".I " $0; next }
    /^                    / { sub(/^ +/, ""); say($0); next }
    match($0, /^ +[^ ].*[^ ]  +/) && RLENGTH > 4 {
      name = substr($0, 1, RLENGTH); rest = substr($0, RLENGTH + 1)
      gsub(/^ +| +$/, "", name); print ".TP"; print ".B " name; say(rest); next
    }
    /^  / { sub(/^ +/, ""); print ".TP"; print ".B " $0; next }
    END { if (examples) { print ".RE"; print ".fi" } }'
}

sed -n '1,/^@VERBS@$/p' "$here/vmsight.1.in" | sed '$d' |
  sed "s/@DATE@/$date/; s/@VERSION@/$version/"
for name in $("$program" --complete "" | cut -f1 | grep -v '^-'); do
  verb "$name" own
done
echo ".SH COMMON OPTIONS"
verb ps common
sed '1,/^@VERBS@$/d' "$here/vmsight.1.in"
