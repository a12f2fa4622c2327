#!/usr/bin/env bash
# nvcc for the kinds of cards in NVCC_CARDS (such as "90") in place of those that a package asks for. For PYTORCH_NVCC.
words=() asked=
while [ $# -gt 0 ]; do
    case $1 in
        -gencode) asked=yes && shift ;;
        -gencode=*) asked=yes ;;
        *) words+=("$1") ;;
    esac
    shift
done
for card in ${asked:+$NVCC_CARDS}; do
    words+=(-gencode "arch=compute_$card,code=sm_$card")
done
exec "$CUDA_HOME/bin/nvcc" "${words[@]}"
