#!/usr/bin/env bash
# A C compiler, for the tests that put a shim before the file layer. Nothing runs.
name=cc
. "$(dirname "$0")/lib.sh"

install() { command -v cc >/dev/null || apt_install gcc libc6-dev; }

start() { install; }
stop() { :; }
url() { command -v cc; }

main "$@"
