#!/bin/sh
# check-rpm.sh [dist/FILE.rpm]: installs the package in a clean root and runs it there, with nothing of this host but the
# kernel. Root only; needs dnf (EL, Fedora), or debootstrap and cpio (Debian, where what a package requires is not asked).
set -eu

cd "$(dirname "$0")/.."
package=${1:-$(find dist -name 'spokes-*.rpm' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)}
[ -n "$package" ] && [ -f "$package" ] || { echo "no package: make rpm" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "a clean root is made by root only" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT INT TERM

if command -v dnf >/dev/null; then
    release=$(. /etc/os-release && echo "${VERSION_ID%%.*}")
    dnf --quiet --assumeyes --installroot "$root" --releasever "$release" --setopt=install_weak_deps=False \
        install "$(realpath "$package")"
elif command -v debootstrap >/dev/null && command -v cpio >/dev/null; then
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    python=$(rpm -qp --requires "$package" 2>/dev/null | sed -n 's,^.*/\(python3\.[0-9]*\)$,\1,p' | head -n 1)
    debootstrap --variant=minbase --include="$python,libssl3,ca-certificates" "$suite" "$root" >"$root.log" ||
        { tail "$root.log" >&2; exit 1; }
    rm -f "$root.log"
    rpm2cpio "$package" | (cd "$root" && cpio --quiet -idm)
else
    echo "needs dnf, or debootstrap and cpio" >&2
    exit 1
fi

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin "$@"; }
fail() { echo "check-rpm: $1" >&2; exit 1; }

inside spokes --version
inside spoke --version
! find "$root/usr/lib/spokes/bin" -mindepth 1 -printf '%f\n' | grep -Ev '^(python[0-9.]*|spokes?)$' ||
    fail "there are programs in its bin that are not its own"
! grep -rIl -F "$PWD" "$root/usr/lib/spokes/bin" "$root/usr/lib/spokes/pyvenv.cfg" || fail "it names the host that built it"
mkdir -p "$root/var/lib/spokes"
: >"$root/log"
inside spokes server --data /var/lib/spokes --domain tun.test --http 127.0.0.1:0 --https 127.0.0.1:0 \
    --tcp-address 127.0.0.1 >"$root/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || :; wait $server 2>/dev/null || :; rm -rf --one-file-system "$root"' EXIT INT TERM
tries=0
until grep -q '^Spokes is ready' "$root/log"; do
    kill -0 $server 2>/dev/null && [ $tries -lt 120 ] || { cat "$root/log" >&2; fail "the server does not come up"; }
    tries=$((tries + 1))
    sleep 0.5
done
inside /usr/lib/spokes/bin/python -I -m spokes.health || fail "the server does not answer"
inside spokes status --data /var/lib/spokes
echo "check-rpm: $package works in a clean root"
