#!/bin/sh
# install-help.sh PYTHON BIN SHARE: writes manual pages and the completion of bash, zsh and fish below SHARE, as the
# programs in BIN say them, run by PYTHON. (A script's own first line may name where it will live, not where it lies.)
set -eu
python=$1
bin=$2
share=$3

install -d "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
    "$share/fish/vendor_completions.d"
"$python" "$(dirname "$0")/manpages.py" "$share/man/man1"
for program in spokes spoke; do
    variable=_$(echo "$program" | tr '[:lower:]' '[:upper:]')_COMPLETE
    complete() { env "$variable=$1_source" "$python" "$bin/$program"; }
    complete bash >"$share/bash-completion/completions/$program"
    complete zsh >"$share/zsh/site-functions/_$program"
    complete fish >"$share/fish/vendor_completions.d/$program.fish"
done
