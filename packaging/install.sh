#!/bin/sh
# `make install`: programs, units, manual pages, completion and an example configuration under PREFIX (below DESTDIR,
# for packagers). What runs is a virtual environment of its own in PREFIX/lib/spokes: the locked packages that it needs
# and nothing of what tests or builds take.
# PYTHON: the interpreter it will run with. BIN: a built checkout's .venv/bin, which makes the wheel.
set -eu

cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local}
SYSCONFDIR=${SYSCONFDIR:-/etc}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-python3}
BIN=${BIN:-.venv/bin}
home=$PREFIX/lib/spokes
root=$DESTDIR$home
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

case "$PREFIX" in /*) ;; *) echo "PREFIX must be an absolute path, not '$PREFIX'" >&2; exit 2 ;; esac
mkdir -p "$DESTDIR$PREFIX" 2>/dev/null && [ -w "$DESTDIR$PREFIX" ] || {
    echo "$DESTDIR$PREFIX cannot be written: run as root, or choose another PREFIX" >&2
    exit 1
}

# Everything is fetched and built before what was installed is touched: a network that fails must not take it away.
"$BIN/pip" wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir "$work/wheels" .
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --require-hashes --wheel-dir "$work/wheels" \
    -r requirements-runtime.lock
rm -rf "$root"
"$PYTHON" -m venv "$root"
"$root/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-index "$work"/wheels/*.whl
./packaging/trim-venv.sh "$root" "$DESTDIR"
"$root/bin/python" -m compileall -q -s "$root" -p "$home" "$root"

install -d "$DESTDIR$PREFIX/bin" "$DESTDIR$PREFIX/lib/systemd/system" "$DESTDIR$PREFIX/lib/sysusers.d" \
    "$DESTDIR$SYSCONFDIR/spokes"
./packaging/install-help.sh "$root/bin/python" "$root/bin" "$DESTDIR$PREFIX/share"
for program in spokes spoke; do
    ln -sfn "../lib/spokes/bin/$program" "$DESTDIR$PREFIX/bin/$program"
    sed "s,/usr/bin/$program ,$PREFIX/bin/$program ,; s,/etc/spoke,$SYSCONFDIR/spoke," \
        "packaging/systemd/$program.service" >"$DESTDIR$PREFIX/lib/systemd/system/$program.service"
    chmod 0644 "$DESTDIR$PREFIX/lib/systemd/system/$program.service"
done
install -m 0644 packaging/systemd/sysusers.conf "$DESTDIR$PREFIX/lib/sysusers.d/spokes.conf"
install -m 0644 packaging/spokes.toml "$DESTDIR$SYSCONFDIR/spokes/spokes.toml.example"

cat <<EOF
Spokes is in $home; its programs are $PREFIX/bin/spokes and $PREFIX/bin/spoke.
As root, for a server that starts with the machine:
  systemd-sysusers $PREFIX/lib/sysusers.d/spokes.conf
  install -m 0640 -g spokes $SYSCONFDIR/spokes/spokes.toml.example $SYSCONFDIR/spokes/spokes.toml   # then edit it
  systemctl daemon-reload && systemctl enable --now spokes
or, for a client that does:
  systemd-sysusers $PREFIX/lib/sysusers.d/spokes.conf
  $PREFIX/bin/spoke configure --config $SYSCONFDIR/spoke/config.json   # asks for the server, its key and a token
  systemctl daemon-reload && systemctl enable --now spoke
EOF
