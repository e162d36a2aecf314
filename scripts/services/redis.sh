#!/usr/bin/env bash
# Redis from apt: append-only file, 127.0.0.1, its own directory; the system service is never used.
#   REDIS_PORT (a free one of the hundred from 56300 on)
name=redis
. "$(dirname "$(readlink -f "$0")")/lib.sh"
pick_port() { use_port "${REDIS_PORT:-}" 56300; }

install() {
  command -v redis-server >/dev/null && return 0
  apt_install redis-server redis-tools
}

start() {
  mkdir -p "$home/data"
  cat >"$home/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $home/data
appendonly yes
appendfsync everysec
save ""
daemonize no
CONF
  spawn redis-server "$home/redis.conf"
  wait_until 20 sh -c "redis-cli -h 127.0.0.1 -p $port ping | grep -qx PONG"
}

stop() { stop_pid TERM 20; }
url() { echo "redis://127.0.0.1:$port/0"; }
main "$@"
