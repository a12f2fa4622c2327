#!/usr/bin/env bash
# Makes the environment (.venv, from the pinned envs/requirements.txt) when it is not there or out of date, then
# runs a command in it:   bash envs/run.sh snakemake --cores all
# PYTHON=/path/to/python3.12 chooses the interpreter. Where the machine has no C++ compiler, one is installed into the
# environment too (envs/compiler.txt); SPECIAL_NO_COMPILER=1 keeps it out.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lock=$root/envs/requirements.txt
compiler=$root/envs/compiler.txt
venv=$root/.venv
log=$root/.venv-install.log
say() { printf 'special: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if command -v "$name" >/dev/null && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    stop "Python 3.11 or newer is needed; found: $("${PYTHON:-python3}" --version 2>&1 | head -n 1)." \
        "Install one, or name it: PYTHON=/path/to/python3.11 bash envs/run.sh ..."
}

install() { "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps "$@" >>"$log" 2>&1; }

has_compiler() {
    local name
    for name in ${CXX:-} c++ g++ clang++; do # CXX may be two words, such as: ccache g++
        command -v "$name" >/dev/null && return
    done
    return 1
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        stop "$python has no venv module; on Debian or Ubuntu: apt install python3-venv"
    say "making the environment in $venv (once; a few minutes, 6 GB) ..."
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$log" 2>&1 || stop "the environment could not be made; see $log"
    # the lock holds every package, so none is resolved anew: --no-deps
    install -r "$lock" || {
        grep -iE '^ERROR|error:' "$log" | tail -n 3 >&2
        if grep -qiE 'connection|timed? ?out|name resolution|no matching distribution|max retries|proxy' "$log"; then
            stop "packages could not be fetched: check the network, or the proxy and index settings of pip; see $log"
        fi
        stop "packages could not be installed; see $log"
    }
    # the package itself: steps and tests find it from any folder, and a changed line counts at once
    install --no-index --no-build-isolation -e "$root" || stop "special_steps could not be installed; see $log"
    if [ -z "${SPECIAL_NO_COMPILER:-}" ] && ! has_compiler; then
        say "no C++ compiler here: installing one by pip (440 MB; its first run takes two minutes) ..."
        install -r "$compiler" || say "it could not be installed (see $log): training will be several times slower"
    fi
    # compiled now, so that no step waits for it and a missing compiler is reported at once
    "$venv/bin/python" -m special_steps.kernels.build || say "the kernels could not be compiled now; the first step that needs them tries"
    grep -q '^ERROR' "$log" || rm -f "$log"
    cat "$lock" "$compiler" >"$venv/made-from.txt" # last: an interrupted installation is made anew
    say "the environment is ready"
}

cat "$lock" "$compiler" | cmp -s - "$venv/made-from.txt" || make_venv
[ $# -gt 0 ] || { say "ready; run: source $venv/bin/activate"; exit 0; }
# snakemake's own shells use the environment too
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
exec "$@"
