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
# What spokes needs to run, and ours.
$pip wheel --require-hashes -r requirements-runtime.lock -w "$top/SOURCES/wheels"
$pip wheel --no-build-isolation --no-deps . -w "$top/SOURCES/wheels"
"$top/venv/bin/python" setup.py --quiet sdist --formats=gztar --dist-dir "$top/SOURCES"
tar -C "$top/SOURCES" -cf "$top/SOURCES/wheels.tar" wheels

# The newest versions of symbols that any of it asks of the system's libc, and ours of its OpenSSL.
mkdir "$top/look"
for wheel in "$top"/SOURCES/wheels/*.whl; do "$PYTHON" -m zipfile -e "$wheel" "$top/look"; done
newest() {  # PREFIX DIR
    find "$2" -name '*.so*' -exec readelf -V {} + 2>/dev/null | sed -n "s/.*Name: $1_\([0-9][0-9.]*\) .*/\1/p" | sort -uV | tail -n 1
}
glibc=$(newest GLIBC "$top/look")
openssl=$(newest OPENSSL "$top/look/spokes")
[ -n "$glibc" ] && [ -n "$openssl" ] || { echo "readelf finds no versions of libc and libssl: install binutils" >&2; exit 1; }

# --nodeps: on a host of another family the build requirements have other names; the spec fails by itself without them.
rpmbuild -bb --nodeps --define "_topdir $top" --define "spokes_python $PYTHON" \
	--define "spokes_glibc $glibc" --define "spokes_openssl $openssl" \
	"$@" packaging/spokes.spec
cp "$top"/RPMS/*/spokes-"$version"-*.rpm dist/
