#!/usr/bin/env bash
# Checks the GPU path on a CUDA machine, in under ten minutes:
#
#   bash tests/gpu/check.sh [FOLDER]
#
# Figures are printed as they come and kept in FOLDER/figures.md (default: gpu-check), also when the run is cut short.
# PYTHON=python3 takes an environment that is there; otherwise envs/run.sh makes the project's own.
# WITH_MAMBA_SSM=1 also compiles mamba-ssm (up to 20 minutes) and measures it.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "${1:-gpu-check}"
out=$(cd "${1:-gpu-check}" && pwd)
begin=$SECONDS
: >"$out/figures.md"
figure() { printf '| %s | %s |\n' "$1" "$2" | tee -a "$out/figures.md"; }

if [ -z "${PYTHON:-}" ]; then
    bash "$root/envs/run.sh" true || exit 1
    PYTHON=$root/.venv/bin/python
fi
command -v nvidia-smi >/dev/null || { echo "no NVIDIA driver on this machine: nothing to check" >&2; exit 1; }
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE

# check PART SECONDS: a part of check.py; what it printed stays when it is stopped or fails
check() {
    printf '\n== %s (%s s so far)\n' "$*" "$((SECONDS - begin))"
    timeout -k 5 "$2" "$PYTHON" "$root/tests/gpu/check.py" "$1" --out "$out" ||
        figure "$1" "FAILED or stopped after at most $2 s (exit code $?)"
}

# mamba-ssm and causal-conv1d are compiled beside the other checks, and installed when these are done without them.
if [ -n "${WITH_MAMBA_SSM:-}" ]; then
    "$PYTHON" -m pip uninstall -y mamba-ssm causal-conv1d >/dev/null 2>&1
    PYTHON=$PYTHON timeout -k 5 1200 bash "$root/envs/gpu.sh" "$out/wheels" >"$out/build.log" 2>&1 &
    builder=$!
fi

check card 60
check parity 120
check network 120
check iteration 60
check default 200
check pavia 240
if [ -n "${WITH_MAMBA_SSM:-}" ]; then
    wait $builder
    built=$?
    while read -r _ package _ _ seconds _; do
        figure "build of $package" "$seconds s"
    done < <(grep ' compiled in ' "$out/build.log")
    if [ $built = 0 ]; then
        "$PYTHON" -m pip install --no-deps "$out"/wheels/*.whl >>"$out/build.log" 2>&1
    else
        figure "build of mamba-ssm" "FAILED or stopped (exit code $built): $(tail -n 1 "$out/build.log")"
    fi
    check parity-fused 120
    check iteration-fused 60
fi
printf '\nall of it: %s s; figures: %s\n' "$((SECONDS - begin))" "$out/figures.md"
