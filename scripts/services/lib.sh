# shellcheck shell=bash
# Shared by the service scripts beside it: directories, ports, waiting, pid files.
#
# A script sets `name` and sources this file. It then has `$home` (the service's own
# directory under SERVICES_DIR), `$port` once it has called `use_port`, and the functions
# below; it defines install, start, stop and url, and ends with `main "$@"`.
set -euo pipefail

SERVICES_DIR=${SERVICES_DIR:-.services}
mkdir -p "$SERVICES_DIR"
SERVICES_DIR=$(cd "$SERVICES_DIR" && pwd -P)
home=$SERVICES_DIR/$name
pidfile=$home/run/$name.pid
portfile=$home/run/$name.port
logfile=$home/run/$name.log
mkdir -p "$home/run"

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

# gently COMMAND...: leave the machine responsive while a program is built.
gently() { nice -n 10 "$@"; }

# apt_install PACKAGE...: install what is missing; needs root (or sudo). Debian starts a
# daemon as it installs it; a policy-rc.d that says no (101) keeps it from doing so.
apt_install() {
  local missing=() package root=() policy=/usr/sbin/policy-rc.d ours=no status=0
  for package; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "needs ${missing[*]}, and there is no apt here to install it"
  say "installing ${missing[*]} with apt"
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || die "needs ${missing[*]}: install it (apt-get install ${missing[*]}), or run as root"
    root=(sudo -n)
  fi
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
  fi
  {
    "${root[@]}" apt-get update -qq &&
      "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
  } >"$home/run/apt.log" 2>&1 || status=$?
  [ "$ours" = no ] || "${root[@]}" rm -f "$policy"
  [ "$status" -eq 0 ] || { tail -n 20 "$home/run/apt.log" >&2; die "apt could not install ${missing[*]}"; }
}

# run_as USER COMMAND...: drop root to USER; anyone else runs as themselves.
run_as() {
  local user=$1; shift
  if [ "$(id -u)" -eq 0 ]; then
    setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- env HOME="$home" "$@"
  else
    "$@"
  fi
}

# port_open PORT: whether something answers on 127.0.0.1:PORT.
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# use_port WANTED DEFAULT: set $port. A port that was asked for is the port, or an error
# at the start. Otherwise a running server keeps its own, and a new one takes a free port of
# the hundred from DEFAULT on, beginning at one made from the path, so that checkouts whose
# tests start together do not meet.
use_port() {
  local wanted=$1 candidate first
  if [ -n "$wanted" ]; then port=$wanted; return 0; fi
  if alive && [ -s "$portfile" ]; then port=$(head -n1 "$portfile"); return 0; fi
  first=$(($2 + $(printf '%s' "$home" | cksum | cut -d' ' -f1) % 100))
  for candidate in $(seq "$first" $(($2 + 99))) $(seq "$2" "$first"); do
    if ! port_open "$candidate"; then port=$candidate; return 0; fi
  done
  die "no free port from $2 to $(($2 + 99))"
}

# alive: whether the pid file names a live process of ours: one whose command line or
# working directory lies in $home or $data (a pid reused by a stranger has neither).
alive() {
  local pid place
  pid=$(head -n1 "$pidfile" 2>/dev/null) || return 1
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  for place in "$home" "${data:-$home}"; do
    case "$(readlink "/proc/$pid/cwd" 2>/dev/null)/" in "$place"/*) return 0 ;; esac
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$place"; then return 0; fi
  done
  return 1
}

# spawn COMMAND...: start detached, in its own session, output to $logfile. From $home,
# so that `alive` knows the child even before it has run exec.
spawn() {
  cd "$home"
  setsid "$@" </dev/null >>"$logfile" 2>&1 9>&- &
  echo $! >"$pidfile"
}

# wait_until SECONDS COMMAND...: poll until COMMAND succeeds or the server dies.
wait_until() {
  local limit=$(( $1 * 10 )) tick=0; shift
  until "$@" >/dev/null 2>&1; do
    alive || { tail -n 20 "$logfile" >&2 || true; die "exited while starting; see $logfile"; }
    tick=$((tick + 1))
    [ "$tick" -lt "$limit" ] || { tail -n 20 "$logfile" >&2 || true; die "not ready after $((limit / 10)) s; see $logfile"; }
    sleep 0.1
  done
}

# stop_pid [SIGNAL] [SECONDS]: signal the server, wait, then SIGKILL.
stop_pid() {
  local signal=${1:-TERM} seconds=${2:-20} pid tick=0
  if ! alive; then rm -f "$pidfile"; return 0; fi
  pid=$(head -n1 "$pidfile")
  kill -s "$signal" "$pid" 2>/dev/null || true
  while alive; do
    tick=$((tick + 1))
    [ "$tick" -lt $((seconds * 10)) ] || { say "did not stop in $seconds s: SIGKILL"; kill -9 "$pid" 2>/dev/null || true; }
    sleep 0.1
  done
  rm -f "$pidfile"
}

# maven_libs DEPENDENCIES [DEST]: the jars of a pom <dependencies> body, with everything
# they need at run time, copied to DEST ($home/lib). Done again only when the body changes.
maven_libs() {
  local body=$1 dest=${2:-$home/lib} work=$home/run/pom
  [ "$(cat "$dest/.dependencies" 2>/dev/null)" = "$body" ] && return 0
  command -v mvn >/dev/null && command -v java >/dev/null || apt_install openjdk-17-jre-headless maven
  say "fetching jars with Maven"
  rm -rf "$dest" "$work"; mkdir -p "$dest" "$work"
  cat >"$work/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local.services</groupId><artifactId>$name</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>$body</dependencies>
</project>
POM
  gently mvn -B -q -Dstyle.color=never -f "$work/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$dest" >"$work/mvn.log" 2>&1 \
    || { cat "$work/mvn.log" >&2; die "Maven could not resolve the jars"; }
  printf '%s' "$body" >"$dest/.dependencies"
}

# main VERB: call the script's own function; `start` and `stop` are idempotent.
main() {
  # One verb at a time for each service; a server must not inherit the lock (9>&-).
  exec 9>"$home/run/lock"
  flock 9
  case ${1:-} in
    install) install ;;
    start)
      pick_port
      if ! alive; then
        install
        port_open "$port" && die "port $port is taken by another program"
        start
        echo "$port" >"$portfile"
      fi
      url ;;
    stop) stop ;;
    status) if alive; then pick_port; url; else exit 3; fi ;;
    *) echo "usage: $0 install|start|stop|status" >&2; exit 2 ;;
  esac
}
