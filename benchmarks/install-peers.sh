#!/bin/sh
# Installs what `make bench` compares with and loads with: Debian packages where allowed, rathole by cargo where it exists.
# What cannot be installed is skipped by name in the report, so this script never fails.
set -u
cd "$(dirname "$0")/.." || exit 1
./packaging/system-packages.sh bench || true
RATHOLE_VERSION=0.5.0
if [ -x .bench/rathole/bin/rathole ]; then
    :
elif command -v cargo >/dev/null; then
    # Without --locked: its lock file holds time 0.3.29, which Rust 1.80 and later refuse to compile.
    nice -n 19 cargo install rathole --version "$RATHOLE_VERSION" --root .bench/rathole --quiet \
        --no-default-features --features server,client,tls || echo "rathole cannot be built" >&2
else
    echo "rathole needs cargo, which is not installed" >&2
fi
exit 0
