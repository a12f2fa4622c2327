#!/usr/bin/env bash
# Adds the fused scan of mamba-ssm, and causal-conv1d, to the environment, compiled for the card that is here only. The
# training takes it where Triton, which comes with torch, does not run; Triton's own kernels are faster.
#   bash envs/gpu.sh
# Needs an NVIDIA card and nvcc of the CUDA version (the first number) that torch is built for. An environment that is
# made anew has lost them: run it again.
#   bash envs/gpu.sh FOLDER       keeps the two wheels in FOLDER and does not install them
#   MAX_JOBS=4                    compilations at a time for each of the two (else by cores and memory)
#   PYTHON=python3                takes the environment of this Python, which must have torch, in place of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf 'special: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

command -v nvidia-smi >/dev/null || stop "no NVIDIA driver (nvidia-smi) on this machine: run this on one with a card"
cards=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>&1 | sort -u | tr -d '.\r') || true
[[ $cards =~ ^[0-9]+($'\n'[0-9]+)*$ ]] || stop "nvidia-smi finds no card: ${cards%%$'\n'*}"

# the toolkit's folder: that of nvcc on the PATH, if it has the headers too (it may be a link or a wrapper)
nvcc=$(readlink -f "$(command -v nvcc)") || true
toolkit() { compgen -G "$1/include/cuda_runtime.h" || compgen -G "$1/targets/*/include/cuda_runtime.h"; } >/dev/null
if [ -z "${CUDA_HOME:-}" ]; then
    CUDA_HOME=${nvcc%/bin/nvcc}
    toolkit "$CUDA_HOME" || CUDA_HOME=/usr/local/cuda
fi
{ [ -x "$CUDA_HOME/bin/nvcc" ] && toolkit "$CUDA_HOME"; } ||
    stop "no CUDA toolkit with nvcc in $CUDA_HOME: install it, or name its folder: CUDA_HOME=/path/to/cuda bash envs/gpu.sh"

[ -n "${PYTHON:-}" ] || bash "$root/envs/run.sh" true
python=${PYTHON:-$root/.venv/bin/python}
wanted=$("$python" -c 'import torch; print(torch.version.cuda or "")' 2>/dev/null) ||
    stop "$python has no torch: leave PYTHON out, or name the Python of an environment that has it"
[ -n "$wanted" ] || stop "the torch of $python is built without CUDA: install a CUDA build of it"
found=$("$CUDA_HOME/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
[ "${found%%.*}" = "${wanted%%.*}" ] ||
    stop "nvcc in $CUDA_HOME is of CUDA $found, torch of CUDA $wanted: install the toolkit ${wanted%%.*}.x, and name its folder: CUDA_HOME=/path/to/cuda-${wanted%%.*} bash envs/gpu.sh"

# two packages at a time; a compilation can take 6 GB
jobs=$(($(nproc) / 2)) memory=$(($(awk '/MemAvailable/ {print int($2 / 1e6)}' /proc/meminfo) / 12))
[ "$memory" -ge "$jobs" ] || jobs=$memory
[ "$jobs" -ge 1 ] || jobs=1
export CUDA_HOME MAX_JOBS=${MAX_JOBS:-$jobs} NVCC_CARDS=${cards//$'\n'/ } PYTORCH_NVCC=$root/envs/nvcc_one_card.sh
export MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE # no download of wheels for another torch

folder=${1:-$root/.gpu-build}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
lock=$root/envs/gpu.txt
pip() { nice "$python" -m pip --disable-pip-version-check "$@"; }
why() { grep -iE 'error' "$1" | tail -n 1 | cut -c 1-200; }

grep -vE '^(causal-conv1d|mamba-ssm)==' "$lock" >"$folder/packages.txt"
pip install --no-deps -r "$folder/packages.txt" >"$folder/packages.log" 2>&1 ||
    stop "packages could not be installed ($(why "$folder/packages.log")); see $folder/packages.log"

build() {
    local start=$SECONDS log=$folder/${1%%==*}.log
    if pip wheel --no-build-isolation --no-deps -w "$folder" "$1" >"$log" 2>&1; then
        say "$1 compiled in $((SECONDS - start)) s"
    else
        stop "$1 could not be compiled ($(why "$log")); see $log"
    fi
}
say "compiling causal-conv1d and mamba-ssm for compute capability $NVCC_CARDS, $MAX_JOBS jobs each (5 to 20 minutes) ..."
rm -f "$folder"/*.whl
builders=()
for package in $(grep -oE '^(causal-conv1d|mamba-ssm)==[^ ]+' "$lock"); do
    build "$package" &
    builders+=($!)
done
good=yes
for builder in "${builders[@]}"; do wait "$builder" || good=; done
[ -n "$good" ] || exit 1
[ $# -gt 0 ] && exit

pip install --no-deps --force-reinstall "$folder"/*.whl >"$folder/install.log" 2>&1 ||
    stop "the compiled packages could not be installed ($(why "$folder/install.log")); see $folder/install.log"
"$python" -c 'import torch, causal_conv1d_cuda, selective_scan_cuda' 2>"$folder/install.log" ||
    stop "the compiled packages do not load ($(why "$folder/install.log")); see $folder/install.log"
rm -rf "$folder"
say "mamba-ssm is installed: training on the card uses it where Triton does not run"
