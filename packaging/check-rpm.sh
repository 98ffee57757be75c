#!/bin/sh
# check-rpm.sh [dist/FILE.rpm]: installs the package in a clean root, runs it there as its own users would, and erases it;
# nothing of this host is used but the kernel. Root only.
# EL and Fedora: dnf makes the root, so that what the package requires is asked of the distribution.
# Debian: debootstrap makes it and rpm installs without asking, since packages have other names here.
set -eu

cd "$(dirname "$0")/.."
package=${1:-$(find dist -name 'spokes-*.rpm' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)}
[ -n "$package" ] && [ -f "$package" ] || { echo "no package: make rpm" >&2; exit 1; }
package=$(realpath "$package")
[ "$(id -u)" = 0 ] || { echo "a clean root is made by root only" >&2; exit 1; }
work=$(mktemp -d)
root=$work/root
mkdir "$root"
chmod 755 "$work" "$root"
server=
ending() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    [ -z "$server" ] || wait "$server" 2>/dev/null || :
    rm -rf --one-file-system "$work"
}
trap ending EXIT
trap 'exit 1' INT TERM

family=$(. /etc/os-release && echo " $ID ${ID_LIKE:-} ")
case $family in
*" fedora "* | *" rhel "*)
    release=$(. /etc/os-release && echo "${VERSION_ID%%.*}")
    # dnf 5 looks for the repositories of the new root, which has none yet.
    host_repositories=$(dnf --version 2>/dev/null | sed -n '1s/^dnf5 .*/--use-host-config/p')
    # shellcheck disable=SC2086
    dnf --quiet --assumeyes --installroot "$root" $host_repositories --releasever "$release" \
        --setopt=install_weak_deps=False install "$package"
    erase() { rpm --root "$root" --erase spokes; }
    ;;
*" debian "*)
    for tool in debootstrap rpm; do
        command -v $tool >/dev/null || { echo "$tool is missing: apt-get install $tool" >&2; exit 1; }
    done
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    python=$(rpm -qp --requires "$package" 2>/dev/null | sed -n 's,^.*/\(python3\.[0-9]*\)$,\1,p' | head -n 1)
    debootstrap --variant=minbase --include="$python,libssl3,ca-certificates" "$suite" "$root" >"$work/log" ||
        { tail "$work/log" >&2; exit 1; }
    rpm --root "$root" --initdb
    rpm --root "$root" --force-debian --nodeps --install "$package"
    erase() { rpm --root "$root" --force-debian --nodeps --erase spokes; }
    ;;
*)
    echo "needs a host of the families EL, Fedora or Debian" >&2
    exit 1
    ;;
esac

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin "$@"; }
as() {  # USER:GROUP COMMAND …
    user=$1
    shift
    chroot --userspec="$user" "$root" /usr/bin/env -i PATH=/usr/bin:/bin "$@"
}
fail() { echo "check-rpm: $1" >&2; exit 1; }
mode_of() { inside stat -c '%U:%G %a' "$1"; }

as 65534:65534 spokes --version
as 65534:65534 spoke --version
if find "$root/usr/lib/spokes/bin" -mindepth 1 -printf '%f\n' | grep -Ev '^(python[0-9.]*|spokes?)$'; then
    fail "there are programs in its bin that are not its own"
fi
if find "$root/usr/lib/spokes" -path '*/_fastpath/hooks*' | grep .; then
    fail "what only tests call is installed"
fi
if grep -rIl -F "$PWD" "$root/usr/lib/spokes/bin" "$root/usr/lib/spokes/pyvenv.cfg"; then
    fail "it names the host that built it"
fi
for script in spokes spoke; do
    head -n 1 "$root/usr/lib/spokes/bin/$script" | grep -q '^#!/usr/lib/spokes/bin/python' || fail "$script starts with another interpreter"
done
inside find /usr/lib/spokes -name '*.pyc' -print -quit | grep -q . || fail "nothing is compiled: each start would do it again"
[ "$(mode_of /etc/spokes/spokes.toml)" = "root:spokes 640" ] || fail "/etc/spokes/spokes.toml: $(mode_of /etc/spokes/spokes.toml)"
[ "$(mode_of /etc/spoke)" = "spoke:spoke 700" ] || fail "/etc/spoke: $(mode_of /etc/spoke)"
if command -v systemd-analyze >/dev/null; then
    # It also names units of the system that a clean root does not have.
    systemd-analyze --man=no --root "$root" verify spokes.service spoke.service >"$work/log" 2>&1 || :
    if grep -E '/spokes?\.service:' "$work/log"; then fail "systemd does not understand a unit"; fi
fi

# As the unit does: its user, its file, its data directory (which systemd makes).
install -d -m 0700 "$root/var/lib/spokes"
inside chown spokes:spokes /var/lib/spokes
inside sed -i 's/^domain = .*/domain = "tun.test"/' /etc/spokes/spokes.toml
: >"$work/server.log"
# (Not by `as`: the process to end would be a shell that waits for it.)
chroot --userspec=spokes:spokes "$root" /usr/bin/env -i PATH=/usr/bin:/bin spokes server --config /etc/spokes/spokes.toml \
    --http 127.0.0.1:0 --https 127.0.0.1:0 --tcp-address 127.0.0.1 >"$work/server.log" 2>&1 &
server=$!
tries=0
until grep -q '^Spokes is ready' "$work/server.log"; do
    kill -0 $server 2>/dev/null && [ $tries -lt 120 ] || { cat "$work/server.log" >&2; fail "the server does not come up"; }
    tries=$((tries + 1))
    sleep 0.5
done
as spokes:spokes /usr/lib/spokes/bin/python -I -m spokes.health || fail "the server does not answer"
as spokes:spokes spokes status
# A client as its unit's user reads what root configured.
https=$(as spokes:spokes spokes status --json | sed -n 's/.*"https": *\["\([^"]*\)".*/\1/p')
pin=$(grep -o 'sha256:[0-9a-f]*' "$work/server.log" | head -n 1)
inside spoke configure --url "https://$https" --server-key "$pin" --token-file /var/lib/spokes/first-token \
    --config /etc/spoke/config.json
as spoke:spoke spoke info --config /etc/spoke/config.json
kill $server
wait $server || fail "the server ended with $?"
server=
erase
if [ -e "$root/usr/lib/spokes" ]; then find "$root/usr/lib/spokes" | head >&2; fail "erasing it left files"; fi
echo "check-rpm: $package works in a clean root"
