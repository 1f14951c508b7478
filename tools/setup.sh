#!/bin/sh
# Makes .venv/ with the package and its pinned dependencies; does nothing if that is done.
# The stamp's name holds a checksum of what was installed and where: it is written last, so that
# an interrupted installation is redone, and a change or a moved folder installs anew.
set -eu
cd "$(dirname "$0")/.."

sum=$( (pwd -P; cat constraints.txt pyproject.toml setup.cfg) | cksum | cut -d ' ' -f 1)
stamp=.venv/.installed-$sum
if [ -x .venv/bin/python ] && [ -e "$stamp" ]; then
    exit 0
fi

whole=
for old in .venv/.installed-*; do
    [ -e "$old" ] && whole=yes
done
rm -f .venv/.installed-*
# Only a whole environment whose interpreter still runs from here is brought up to date in place.
here=$(pwd -P)/.venv
if [ -z "$whole" ] ||
    [ "$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys.prefix))' 2>/dev/null)" != "$here" ] ||
    ! grep -q -F "$here" .venv/bin/activate; then
    python=$(sh tools/find_python.sh)
    echo "Making .venv/ with $python; the first time this fetches several GB (PyTorch)." >&2
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
: >"$stamp"
