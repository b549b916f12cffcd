#!/bin/sh
# Sees to programs that only a distribution has: need.sh PROGRAM...
# Those that are missing are installed by apt-get where that may be used, else named in one command.
set -eu

has() {
  case $1 in
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Debian's names.
package() {
  case $1 in
    gcc) echo "gcc libc6-dev" ;;
    venv) echo python3-venv ;;
    ip) echo iproute2 ;;
    *) echo "$1" ;;
  esac
}

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust by rustup, see https://rustup.rs"
  exit 1
fi
packages=
for program; do
  has "$program" || packages="$packages $(package "$program")"
done
[ -n "$packages" ] || exit 0
if ! command -v apt-get >/dev/null; then
  echo "programs are missing; install what Debian calls$packages"
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "programs are missing; run: sudo apt-get update && sudo apt-get install -y$packages"
  exit 1
fi
echo "installing by apt-get what is missing:$packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # they are several
{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y $packages; } >"$log" 2>&1 </dev/null ||
  { cat "$log"; exit 1; }
