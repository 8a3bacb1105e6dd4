#!/bin/sh
# Debian packages that are missing for the given groups of build-deps.txt.
#
#   packaging/deps.sh check GROUP...     names them and fails if there are any
#   packaging/deps.sh install GROUP...   installs them (root or sudo); apt runs only if needed
set -eu
here=$(dirname "$0")

wanted() {
  for group; do
    sed -n "s/^$group  *//p" "$here/build-deps.txt"
  done
}

missing() {
  for package in $(wanted "$@"); do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' ||
      echo "$package"
  done
}

check() {
  # Without dpkg the compiler and CMake will say what they miss.
  command -v dpkg-query >/dev/null || return 0
  packages=$(missing "$@" | tr '\n' ' ')
  [ -n "$packages" ] || return 0
  echo "missing packages: $packages" >&2
  echo "hint: \`make deps\` installs them, or: apt-get install --no-install-recommends $packages" >&2
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@"
}

install() {
  packages=$(missing "$@")
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    check "$@"
    return
  fi
  # The package lists may be absent or too old: then they are fetched, and it is tried again.
  # shellcheck disable=SC2086
  apt_install $packages || { as_root apt-get update && apt_install $packages; }
}

[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
"$@"
