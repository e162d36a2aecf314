#!/usr/bin/env bash
# Postfix from Debian's packages, an instance of its own that hands every message on.
#   POSTFIX_PORT (a free one of the hundred from 57170 on)
#   POSTFIX_TRANSPORT (discard:  smtp:[127.0.0.1]:PORT  lmtp:inet:127.0.0.1:PORT)
#   POSTFIX_SETTINGS (none; lines for the end of main.cf)
# Its user must be able to enter SERVICES_DIR. Only root can start it.
name=postfix
. "$(dirname "$(readlink -f "$0")")/lib.sh"
transport=${POSTFIX_TRANSPORT:-discard:}
pick_port() { use_port "${POSTFIX_PORT:-}" 57170; }

install() {
  [ -x /usr/sbin/postfix ] && return 0
  if [ "$(id -u)" -eq 0 ] && command -v debconf-set-selections >/dev/null; then
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  fi
  apt_install postfix
}

start() {
  [ "$(id -u)" -eq 0 ] || die "only root can start Postfix"
  mkdir -p "$home/config" "$home/queue" "$home/data"
  chmod 755 "$SERVICES_DIR" "$home" "$home/config" "$home/queue"
  chown postfix "$home/data"
  write_main >"$home/config/main.cf"
  write_master >"$home/config/master.cf"
  spawn /usr/sbin/postfix -c "$home/config" start-fg
  wait_until 20 port_open "$port"
}

# Limits that only slow it down are lifted; what keeps mail safe stays as it is.
write_main() {
  cat <<END
compatibility_level = 3.6
queue_directory = $home/queue
data_directory = $home/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = $home/run/mail.log
maillog_file_prefixes = $home
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
default_transport = $transport
disable_dns_lookups = yes
smtp_host_lookup = native
smtp_tls_security_level = may
lmtp_tls_security_level = may
smtputf8_enable = yes
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = static:all
in_flow_delay = 0
default_process_limit = 100
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
qmgr_message_active_limit = 100000
minimal_backoff_time = 1s
queue_run_delay = 1s
alias_maps =
alias_database =
${POSTFIX_SETTINGS:-}
END
}

write_master() {
  cat <<END
127.0.0.1:$port inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
END
}

stop() {
  # The pid is of a script that waits for the master and ends with it.
  if alive; then /usr/sbin/postfix -c "$home/config" stop >>"$logfile" 2>&1 || true; fi
  stop_pid TERM 20
}
url() { echo "smtp://127.0.0.1:$port"; }
main "$@"
