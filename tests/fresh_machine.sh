#!/usr/bin/env bash
# README's two commands on a machine that has nothing: a Debian made by mmdebstrap (python3, python3-venv, git), as an
# unprivileged user, in a clone of what is committed here. The machine is deleted at the end.
#
#   bash tests/fresh_machine.sh [SUITE [PYTEST-OPTIONS]]     SUITE: bookworm (Debian 12, Python 3.11; the default),
#                                                            trixie (Debian 13, Python 3.13)
#   COMPARE=1 bash tests/fresh_machine.sh                    also times the default run with g++ against the one without
#
# Needs mmdebstrap (apt: mmdebstrap), root or user namespaces, 12 GB in $TMPDIR, and the network. The machine gets its
# packages from this host's own Debian mirror; MIRROR=URL names another. Inside, pip gets this host's PIP_* and *_proxy
# variables, and these files, where they exist (CARRY="FILE FOLDER ..." names others): /etc/pip.conf, $PIP_CONFIG_FILE
# and the certificates $PIP_CERT.
# shellcheck disable=SC2016 # what stands in single quotes is expanded inside
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
suite=${1:-bookworm}
shift $(($# > 0))
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt install mmdebstrap" >&2; exit 1; }

mirror=${MIRROR:-}
if [ -z "$mirror" ] && command -v apt-get >/dev/null; then
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' | awk '$1 == "Debian" && $2 == "Debian" {print $3; exit}')
fi

luggage=$(mktemp -d)
trap 'rm -rf "$luggage"' EXIT
git -C "$root" diff --quiet HEAD || echo "changes that are not committed are not tried" >&2
git -C "$root" bundle create -q "$luggage/special.bundle" HEAD

# what the user inside runs
cat >"$luggage/commands.sh" <<'COMMANDS'
set -uo pipefail
cd ~
git -c advice.detachedHead=false -c init.defaultBranch=main clone -q /srv/special.bundle special && cd special || exit 1
failed=0
run() {
    local start=$SECONDS
    echo "\$ $*"
    "$@" || failed=1
    echo "== $* : $((SECONDS - start)) s"
}
. /etc/os-release
echo "== $PRETTY_NAME, $(python3 --version), user $(id -un); a compiler: $(command -v c++ g++ gcc clang++ || echo none)"
run bash envs/run.sh snakemake --cores all
run bash envs/run.sh pytest "$@"
echo $failed >~/failed # after a comparison
COMMANDS
cat >"$luggage/again.sh" <<'AGAIN'
set -euo pipefail
cd ~/special
rm -rf results resources .snakemake ~/.cache/special
bash envs/run.sh python -m special_steps.kernels.build
. /etc/os-release
TIMEFORMAT="== default run with $1 on $PRETTY_NAME: %R s, %U s of processor time"
time bash envs/run.sh snakemake --cores all --quiet all
AGAIN
chmod -R a+rX "$luggage"

inside=("chroot" '"$1"' "runuser" "-u" "visitor" "--" "env" "-i" "HOME=/home/visitor" "PATH=/usr/bin:/bin" "LANG=C.UTF-8")
for name in $(compgen -e | grep -E '^PIP_|_proxy$|_PROXY$'); do
    inside+=("$(printf '%q' "$name=${!name}")")
done
hooks=(--customize-hook='chroot "$1" useradd --create-home visitor'
    --customize-hook="copy-in $luggage/special.bundle $luggage/commands.sh $luggage/again.sh /srv")
for path in ${CARRY-/etc/pip.conf ${PIP_CONFIG_FILE:-} ${PIP_CERT:-}}; do
    [ ! -e "$path" ] || [ "$path" = /dev/null ] ||
        hooks+=(--customize-hook="mkdir -p \"\$1$(dirname "$path")\"" --customize-hook="copy-in $path $(dirname "$path")")
done
hooks+=(--customize-hook="${inside[*]} bash /srv/commands.sh$([ $# = 0 ] || printf ' %q' "$@")")
[ -z "${COMPARE:-}" ] || hooks+=(
    --customize-hook="${inside[*]} bash /srv/again.sh ziglang"
    --customize-hook='chroot "$1" apt-get install -y -qq --no-install-recommends g++ >/dev/null'
    --customize-hook="${inside[*]} bash /srv/again.sh g++")
hooks+=(--customize-hook='exit "$(cat "$1/home/visitor/failed")"')

mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,python3,python3-venv "${hooks[@]}" \
    "$suite" /dev/null ${mirror:+"$mirror"}
