#!/usr/bin/env bash
# Makes what deploy/compose.yaml reads as secrets, where it is missing:
#
#     deploy/secrets.sh && docker compose -f deploy/compose.yaml up -d
#
# A container's user is not the one who made the files, so they are readable by all; the directory
# is not, which is what keeps them on this machine.
set -euo pipefail
target=${1:-$(dirname "$(readlink -f "$0")")/secrets}
mkdir -p -m 0700 "$target"
chmod 0700 "$target"

made() { # made NAME TEXT: the file, unless it is there
  if [ ! -s "$target/$1" ]; then
    printf '%s' "$2" >"$target/$1"
    chmod 0644 "$target/$1"
  fi
}
random() { head -c 24 /dev/urandom | base64 | tr '+/' 'ab' | tr -d '=\n'; }

made postgres_password "$(random)"
made redis_password "$(random)"
made s3_access_key posthouse
made s3_secret_key "$(random)"
made records_url "postgresql://posthouse:$(cat "$target/postgres_password")@postgres:5432/posthouse"
made bus_url "redis://default:$(cat "$target/redis_password")@redis:6379/0"
