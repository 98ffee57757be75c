#!/bin/sh
# check-image.sh [--stand-in]: builds the Dockerfile with buildah, which needs no daemon, and runs the image as it says that
# it is to be run: its user, entry, variables and health check. Root only; leaves no image behind.
# --stand-in: where no registry of images can be reached, its base is made here under the same name: Debian by debootstrap,
# with the interpreter PYTHON (the base's version, in a prefix of its own) in /usr/local, and this host's authorities.
set -eu

cd "$(dirname "$0")/.."
fail() { echo "check-image: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "run it as root"
command -v buildah >/dev/null || fail "buildah is missing: install the package of that name"
base=$(sed -n 's/^FROM \([^ ]*\) AS build$/\1/p' Dockerfile)
image=localhost/spokes-check
work=$(mktemp -d)
server=
images() {  # VERB …: in a store of its own
    verb=$1
    shift
    buildah --root "$work/storage" --runroot "$work/run" "$verb" "$@"
}
ending() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    [ -z "$server" ] || wait "$server" 2>/dev/null || :
    images umount --all >/dev/null 2>&1 || :
    umount "$work"/storage/overlay >/dev/null 2>&1 || :
    rm -rf --one-file-system "$work"
}
trap ending EXIT
trap 'exit 1' INT TERM

if [ "${1:-}" = --stand-in ]; then
    command -v debootstrap >/dev/null || fail "debootstrap is missing: install the package of that name"
    name=${base#python:}                    # 3.11-slim-trixie
    version=${name%%-*}
    suite=${name##*-}
    prefix=$("${PYTHON:-python$version}" -c 'import sys; print(sys.base_prefix)')
    [ "$prefix" != /usr ] && [ -x "$prefix/bin/python$version" ] ||
        fail "PYTHON must be a $version in a prefix of its own, such as pyenv's"
    echo "check-image: $base is a stand-in: $suite by debootstrap, Python from $prefix"
    debootstrap --variant=minbase --include=ca-certificates,libbz2-1.0,libffi8,liblzma5,libsqlite3-0,libssl3t64,zlib1g \
        "$suite" "$work/base" >"$work/log" || { tail "$work/log" >&2; fail "no $suite"; }
    tar -C "$prefix" --exclude __pycache__ --exclude site-packages --exclude test -cf - include lib "bin/python$version" |
        tar -C "$work/base/usr/local" -xf -
    ln -s "python$version" "$work/base/usr/local/bin/python3"
    ln -s python3 "$work/base/usr/local/bin/python"
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/ca-certificates.crt"
    chroot "$work/base" ldconfig
    chroot "$work/base" python3 -m ensurepip >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "no pip"; }
    from=$(images from scratch)
    images add --quiet "$from" "$work/base" / >/dev/null
    images config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt --cmd python3 "$from"
    images commit --quiet --rm "$from" "docker.io/library/$base" >/dev/null
    rm -rf "$work/base"
fi

# --format docker: OCI's own has no health check.
images bud --pull=false --isolation chroot --format docker --tag "$image" . >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log" >&2; fail "it does not build"; }
images inspect --type image "$image" >"$work/image.json"
said() {  # what the image says of itself: a Python expression over its `config`
    python3 -c 'import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
answer = eval(sys.argv[2])
print(*(answer if isinstance(answer, (list, dict)) else [answer]), sep="\n")' "$work/image.json" "$1"
}
user=$(said 'config["User"]')
echo "$user" | grep -Eq '^[1-9][0-9]*:[1-9][0-9]*$' || fail "its user is '$user', not a number above 0"
ports=$(said 'config["ExposedPorts"]')
for port in 8080/tcp 8443/tcp 22000-22999/tcp 22000-22999/udp; do
    low=${port%%[-/]*}/${port#*/}           # a range is kept port by port, or whole
    echo "$ports" | grep -Eqx "$port|$low" || fail "port $port is not exposed"
done

container=$(images from --pull=false "$image")
root=$(images mount "$container")
volume=$(said 'config["Volumes"]')
said 'config["Env"]' >"$work/env"
# The variables of `docker run -e`: any free ports of this host's loopback; those that visitors see are others.
cat >>"$work/env" <<END
SPOKES_DOMAIN=tun.test
SPOKES_HTTP=127.0.0.1:0
SPOKES_HTTPS=127.0.0.1:0
SPOKES_TCP_ADDRESS=127.0.0.1
SPOKES_PUBLIC_HTTP_PORT=8080
SPOKES_PUBLIC_HTTPS_PORT=9443
END
inside() {  # COMMAND …: as the image's user, in its root
    # shellcheck disable=SC2046
    chroot --userspec="$user" "$root" /usr/bin/env -i $(cat "$work/env") "$@"
}
# As process 1 of a namespace of its own, as in a container.
# shellcheck disable=SC2046
unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
    chroot --userspec="$user" "$root" /usr/bin/env -i $(cat "$work/env") $(said 'config["Entrypoint"] + config["Cmd"]') \
    >"$work/log" 2>&1 &
server=$!
tries=0
until grep -q '^Spokes is ready' "$work/log"; do
    kill -0 $server 2>/dev/null && [ $tries -lt 120 ] || { cat "$work/log" >&2; fail "the server does not come up"; }
    tries=$((tries + 1))
    sleep 0.5
done
cat "$work/log"
# shellcheck disable=SC2046
inside $(said 'config["Healthcheck"]["Test"][1:]') || fail "its health check fails while the server runs"
inside spokes status
grep -q -- '--url https://tun.test:9443 ' "$work/log" || fail "clients are not told the public port"
foreign=$(find "$root$volume" ! -user "${user%:*}" -print -quit)
[ -z "$foreign" ] || fail "$foreign belongs to another user"
kill -TERM $(cat "/proc/$server/task/$server/children")
wait $server || fail "SIGTERM ended it with $?"
server=
# shellcheck disable=SC2046
if inside $(said 'config["Healthcheck"]["Test"][1:]') 2>"$work/log"; then fail "its health check passes without a server"; fi
! find "$root/opt/spokes/bin" -mindepth 1 -printf '%f\n' | grep -Ev '^(python[0-9.]*|spokes?)$' ||
    fail "there are programs in its bin that are not its own"
echo "check-image: the image works; Spokes takes $(du -sm "$root/opt/spokes" | cut -f1) MB of it"
