#!/usr/bin/env bash
# promtool, the judge of deploy/prometheus: out of Debian's package, which is unpacked and not installed.
#   promtool.sh install    promtool.sh path: where it is
name=promtool
. "$(dirname "$(readlink -f "$0")")/lib.sh"
tool=$home/bin/promtool

install() {
  [ -x "$tool" ] && return 0
  if command -v promtool >/dev/null; then mkdir -p "$home/bin"; ln -sf "$(command -v promtool)" "$tool"; return 0; fi
  command -v apt-get >/dev/null || die "needs promtool, and there is no apt here to fetch it"
  say "fetching promtool with apt"
  rm -rf "$home/package"; mkdir -p "$home/package" "$home/bin"
  cd "$home/package"
  # apt's own user may not write here; it says so and goes on as root.
  if ! apt-get download -qq prometheus >"$home/run/apt.log" 2>&1; then
    { [ "$(id -u)" -ne 0 ] || apt-get update -qq; apt-get download -qq prometheus; } >>"$home/run/apt.log" 2>&1 \
      || { tail -n 20 "$home/run/apt.log" >&2; die "apt could not fetch prometheus"; }
  fi
  dpkg -x prometheus_*.deb .
  mv usr/bin/promtool "$tool"
  cd "$home"
  rm -rf "$home/package"
}

case ${1:-} in
  install) install ;;
  path) install >&2; echo "$tool" ;;
  *) echo "usage: $0 install|path" >&2; exit 2 ;;
esac
