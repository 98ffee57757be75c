#!/bin/sh
# Installs the Debian packages a build needs (compiler, OpenSSL headers, venv) where they are missing and the user may;
# otherwise says in one line what to install. Arguments add more: "test" what the tests start, "bench" what benchmarks
# compare with and load with.
set -u
want="gcc libc6-dev libssl-dev python3-dev python3-venv"
for purpose in "$@"; do
    case $purpose in
        test) want="$want bind9 curl openssl git postgresql rpm systemd" ;;
        bench) want="$want curl haproxy iperf3 iproute2 nginx-light wrk" ;;
        *) echo "usage: $0 [test] [bench]" >&2; exit 2 ;;
    esac
done

command -v dpkg-query >/dev/null || {
    # Not Debian: the compiler will say what it misses; these are the names to look for.
    echo "not a Debian system; needed are the counterparts of: $want" >&2
    exit 0
}

# A Python of one's own brings its headers and venv along.
if "${PYTHON:-python3}" -c 'import ensurepip, os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' \
    2>/dev/null; then
    want=$(echo "$want" | sed 's/python3-dev python3-venv//')
fi

missing=""
for package in $want; do
    # Any nginx will do.
    [ "$package" = nginx-light ] && [ -x /usr/sbin/nginx ] && continue
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    # Only the programs are wanted: no package may start a service on this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT INT TERM
    fi
    # A mirror that does not answer must not hold up whoever waits for the rest.
    # shellcheck disable=SC2086
    timeout --kill-after=10 120 apt-get update -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=2 &&
        DEBIAN_FRONTEND=noninteractive timeout --kill-after=10 600 apt-get install -y -qq --no-install-recommends \
            -o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=20 -o Acquire::Retries=2 $missing >/dev/null && exit 0
fi
echo "missing system packages; install them with: sudo apt-get install$missing" >&2
exit 1
