#!/usr/bin/env bash
# swaks, a client that the tests talk with. Nothing runs.
name=swaks
. "$(dirname "$(readlink -f "$0")")/lib.sh"

install() { command -v swaks >/dev/null || apt_install swaks; }

start() { install; }
stop() { :; }
url() { command -v swaks; }

main "$@"
