#!/usr/bin/env bash
# nvcc for one kind of card, NVCC_CARD (such as 90): leaves out all `-gencode` of others. For PYTORCH_NVCC.
words=()
while [ $# -gt 0 ]; do
    if [ "$1" = -gencode ]; then
        case $2 in *"code=sm_$NVCC_CARD"*) words+=("$1" "$2") ;; esac
        shift
    elif [[ $1 != -gencode=* || $1 == *"code=sm_$NVCC_CARD"* ]]; then
        words+=("$1")
    fi
    shift
done
exec "${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc)")")}/bin/nvcc" "${words[@]}"
