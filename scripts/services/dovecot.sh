#!/usr/bin/env bash
# Dovecot from Debian's packages, an instance of its own that takes mail over LMTP and keeps it.
#   DOVECOT_PORT    (a free one of the hundred from 57370 on)
#   DOVECOT_FORMAT  (sdbox, mdbox or maildir)
# mail_fsync is as Dovecot has it: what LMTP has acknowledged is on disk.
# Only root can start it.
name=dovecot
. "$(dirname "$(readlink -f "$0")")/lib.sh"
format=${DOVECOT_FORMAT:-sdbox}
pick_port() { use_port "${DOVECOT_PORT:-}" 57370; }

install() { apt_install dovecot-core dovecot-lmtpd; }

start() {
  [ "$(id -u)" -eq 0 ] || die "only root can start Dovecot"
  mkdir -p "$home/mail" "$home/base"
  chmod 755 "$SERVICES_DIR" "$home"
  chown mail:mail "$home/mail"
  write_config >"$home/dovecot.conf"
  spawn /usr/sbin/dovecot -F -c "$home/dovecot.conf"
  wait_until 20 port_open "$port"
}

# Limits that only slow it down are lifted; what keeps mail safe stays as it is.
write_config() {
  cat <<END
protocols = lmtp
listen = 127.0.0.1
base_dir = $home/base
state_dir = $home/base
log_path = $home/run/mail.log
ssl = no
mail_fsync = optimized
mail_location = $format:$home/mail/%n
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
lmtp_save_to_detail_mailbox = no
auth_username_format = %n
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=mail gid=mail home=$home/mail/%n allow_all_users=yes
}
service anvil {
  client_limit = 1000
}
service lmtp {
  client_limit = 1
  process_min_avail = 4
  process_limit = 200
  inet_listener lmtp {
    address = 127.0.0.1
    port = $port
  }
}
END
}

stop() { stop_pid TERM 20; }
url() { echo "lmtp://127.0.0.1:$port"; }
main "$@"
