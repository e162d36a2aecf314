#!/usr/bin/env bash
# Makes a virtual environment: venv.sh PYTHON DIRECTORY. Debian keeps ensurepip in a package
# of its own; as root it is installed, otherwise the command to run is shown.
set -euo pipefail

python=$1
directory=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Posthouse needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Use: make PYTHON=python3.12" >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  package=$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")')
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "$package" >/dev/null
  else
    echo "$python has no ensurepip. Install it first: sudo apt-get install $package" >&2
    exit 1
  fi
fi

"$python" -m venv "$directory"
