#!/bin/sh
# Builds dist/*.rpm on any host with rpmbuild. PYTHON: the interpreter that the package will use on its target, at the same
# path and of the same version (a distribution's, not one of this user's own). Arguments go to rpmbuild.
set -eu

cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
command -v rpmbuild >/dev/null || { echo "rpmbuild is missing: install the package rpm-build (on Debian: rpm)" >&2; exit 1; }

top=$PWD/build/rpm
rm -rf "$top"
mkdir -p "$top/SOURCES/wheels" dist
"$PYTHON" -m venv "$top/venv"
pip="$top/venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --require-hashes -r requirements.lock
# Every locked wheel, and ours; the spec takes from them what spokes needs to run.
$pip wheel --require-hashes -r requirements.lock -w "$top/SOURCES/wheels"
$pip wheel --no-build-isolation --no-deps . -w "$top/SOURCES/wheels"
"$top/venv/bin/python" setup.py --quiet sdist --formats=gztar --dist-dir "$top/SOURCES"
tar -C "$top/SOURCES" -cf "$top/SOURCES/wheels.tar" wheels

# --nodeps: on a host of another family the build requirements have other names; the spec fails by itself without them.
rpmbuild -bb --nodeps --define "_topdir $top" --define "spokes_python $PYTHON" \
	"$@" packaging/spokes.spec
cp "$top"/RPMS/*/spokes-"$version"-*.rpm dist/
