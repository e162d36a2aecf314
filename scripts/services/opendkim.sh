#!/usr/bin/env bash
# OpenDKIM from Debian's packages: a milter that signs every message with RSA-2048.
#   OPENDKIM_PORT (a free one of the hundred from 57270 on)
#   OPENDKIM_DOMAIN (example.com)
name=opendkim
. "$(dirname "$(readlink -f "$0")")/lib.sh"
domain=${OPENDKIM_DOMAIN:-example.com}
pick_port() { use_port "${OPENDKIM_PORT:-}" 57270; }

install() {
  [ -x /usr/sbin/opendkim ] || apt_install opendkim
}

start() {
  mkdir -p "$home/config"
  [ -s "$home/config/key.pem" ] || (umask 077 && openssl genrsa -traditional -out "$home/config/key.pem" 2048)
  cat >"$home/config/opendkim.conf" <<END
Socket inet:$port@127.0.0.1
Domain $domain
Selector bench
KeyFile $home/config/key.pem
Mode s
Canonicalization relaxed/simple
SignatureAlgorithm rsa-sha256
OversignHeaders From
RequireSafeKeys no
Background no
Syslog no
END
  spawn /usr/sbin/opendkim -f -x "$home/config/opendkim.conf"
  wait_until 20 port_open "$port"
}

stop() { stop_pid TERM 20; }
url() { echo "inet:127.0.0.1:$port"; }
main "$@"
