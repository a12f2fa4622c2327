#!/usr/bin/env bash
# Checks the GPU path on a CUDA machine, in under ten minutes:
#
#   bash tests/gpu/check.sh [FOLDER]
#
# Figures are printed as they come and kept in FOLDER/figures.md (default: gpu-check), also when the run is cut short.
# PYTHON=python3 takes an environment that is there; otherwise envs/run.sh makes the project's own.
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

# mamba-ssm and causal-conv1d are compiled beside the first checks, for the card that is here only: their own
# settings are for nine kinds of cards, which takes nine times as long.
build() {
    local start=$SECONDS log=$out/build.log
    export PYTORCH_NVCC=$root/tests/gpu/nvcc_one_card.sh MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE
    export MAX_JOBS=$((($(nproc) + 1) / 2))
    NVCC_CARD=$("$PYTHON" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
    export NVCC_CARD
    for package in $(grep -oE '^(einops|ninja|tokenizers|transformers)==[^ ]+' "$root/envs/gpu.txt"); do
        "$PYTHON" -c "import ${package%%==*}" 2>/dev/null || "$PYTHON" -m pip install --no-deps "$package" >>"$log" 2>&1
    done
    for package in $(grep -oE '^(causal-conv1d|mamba-ssm)==[^ ]+' "$root/envs/gpu.txt"); do
        start=$SECONDS
        if nice timeout 420 "$PYTHON" -m pip wheel --no-build-isolation --no-deps -w "$out/wheels" "$package" >>"$log" 2>&1; then
            figure "build of $package" "$((SECONDS - start)) s"
        else
            figure "build of $package" "FAILED after $((SECONDS - start)) s: $(grep -iE 'error' "$log" | tail -n 1 | cut -c 1-200)"
            return 1
        fi
    done
}
"$PYTHON" -m pip uninstall -y mamba-ssm causal-conv1d >/dev/null 2>&1
rm -rf "$out/wheels"
build &
builder=$!

check card 60
check parity 120
check iteration 60
check default 200
wait $builder && "$PYTHON" -m pip install --no-deps "$out"/wheels/*.whl >>"$out/build.log" 2>&1
check parity-fused 120
check iteration-fused 60
check pavia 240
printf '\nall of it: %s s; figures: %s\n' "$((SECONDS - begin))" "$out/figures.md"
