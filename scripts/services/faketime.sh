#!/usr/bin/env bash
# libfaketime, which sets the clock of one process wrong: no server, so `install` is all there is.
# It prints the library's path.
name=faketime
. "$(dirname "$(readlink -f "$0")")/lib.sh"

library() { printf '%s\n' /usr/lib/*/faketime/libfaketimeMT.so.1 | tail -n1; }

case ${1:-} in
  install)
    [ -e "$(library)" ] || apt_install faketime
    library ;;
  *) echo "usage: $0 install" >&2; exit 2 ;;
esac
