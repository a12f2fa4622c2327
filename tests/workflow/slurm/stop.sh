#!/usr/bin/env bash
# Ends the SLURM that start.sh began, with its jobs: bash stop.sh FOLDER. Safe to call twice, or when none runs.
set -uo pipefail

folder=$(realpath -m "$1")
export SLURM_CONF=$folder/slurm.conf

stop() { # by pid file, and only when the process is what the file says
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) || return
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]; then
        kill "$pid"
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null
    fi
    rm -f "$folder/$1.pid"
}

if timeout -k 1 10 scontrol ping 2>/dev/null | grep -q "is UP"; then
    timeout -k 1 10 squeue -h -o %A | sort -u | timeout -k 1 10 xargs -r scancel
    for _ in $(seq 100); do
        [ -n "$(timeout -k 1 10 squeue -h -t R,CG,PD)" ] || break
        sleep 0.1
    done
fi
stop slurmd
stop slurmctld
stop munged
