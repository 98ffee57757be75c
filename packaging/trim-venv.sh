#!/bin/sh
# trim-venv.sh DIR [DESTDIR]: takes from a virtual environment what Spokes does not run with: pip and setuptools, and the
# programs of other packages. DESTDIR, where it was made but will not live, is taken out of what it says of itself.
set -eu
root=$1
destdir=${2:-}

"$root/bin/python" -m pip uninstall --quiet --yes pip setuptools 2>/dev/null || :
for file in "$root"/bin/*; do
    case ${file##*/} in
        python*|spokes|spoke) ;;
        *) rm -rf "$file" ;;
    esac
done
[ -z "$destdir" ] ||
    grep -rlIZ -F "$destdir" "$root/bin" "$root/pyvenv.cfg" | xargs -0 -r sed -i "s,$destdir,,g"
