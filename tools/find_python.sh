#!/bin/sh
# Prints the path of a Python that can run the package, or says on stderr what to install.
# A candidate counts only once it has run: version managers leave commands on PATH that fail.
# The oldest supported version comes first, since its wheels are the surest to exist.
set -u

supported='3.12 3.13 3.14'
pyenv_root=${PYENV_ROOT:-${HOME:-}/.pyenv}

# The interpreter beneath an active environment is printed, since that environment may be rebuilt.
probe='
import sys
if sys.version_info < (3, 12) or sys.version_info.releaselevel != "final":
    sys.exit(1)
wanted = sys.argv[1]
if wanted and wanted != "%d.%d" % sys.version_info[:2]:
    sys.exit(1)
print(getattr(sys, "_base_executable", sys.executable))
sys.stdout.flush()
import ctypes, ensurepip, ssl, venv
'
incomplete=

# try COMMAND [VERSION]: prints the interpreter and ends the script if COMMAND is one.
try() {
    if found=$("$1" -c "$probe" "${2:-}" 2>/dev/null </dev/null) && [ -x "$found" ]; then
        printf '%s\n' "$found"
        exit 0
    fi
    if [ -x "$found" ]; then
        incomplete=${incomplete:-$found}
    fi
}

try_uv() {
    if path=$(uv python find --system "$1" 2>/dev/null); then
        try "$path" "$1"
    fi
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
    echo "PYTHON=$PYTHON is not a Python >= 3.12 with venv, ensurepip and ssl." >&2
    exit 1
fi

for version in $supported; do
    for candidate in "python$version" python3 python "$pyenv_root/versions/$version"*/bin/python; do
        try "$candidate" "$version"
    done
    try_uv "$version"
done
for candidate in python3 python; do
    try "$candidate"
done
if command -v uv >/dev/null 2>&1; then
    echo 'No Python >= 3.12 found: uv fetches one.' >&2
    uv python install 3.12 >&2 && try_uv 3.12
fi

if [ -n "$incomplete" ]; then
    echo "$incomplete lacks venv, ensurepip, ctypes or ssl: install the rest of it (on Debian and Ubuntu the package python3-venv), then try again." >&2
else
    echo 'No Python >= 3.12 found on PATH, under pyenv or through uv: install Python 3.12 (or uv, which fetches it), then try again.' >&2
fi
exit 1
