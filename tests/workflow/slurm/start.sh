#!/usr/bin/env bash
# A real SLURM on this one machine, for tests: bash start.sh FOLDER
#
# Without systemd, without accounting, and without touching /etc: configuration, keys, sockets, logs and state all lie
# in FOLDER. Then use it:  export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH; sinfo
# Partitions cpu (default) and gpu; the four "GPUs" are device files that every machine has.
# Needs Debian's slurmctld, slurmd, slurm-client and munge. Stop it with stop.sh FOLDER. Safe to call twice.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

folder=$(realpath -m "$1")
export SLURM_CONF=$folder/slurm.conf
user=$(id -un)
host=$(hostname -s)

wait_for() { # seconds, then the command that must succeed
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}
runs() { [ -s "$folder/$1.pid" ] && [ "$(cat "/proc/$(cat "$folder/$1.pid")/comm" 2>/dev/null)" = "$1" ]; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ready() { [[ $(sinfo -h -N -p cpu -o %T) =~ ^(idle|mixed|allocated)$ ]]; }
give_up() {
    echo "SLURM did not start: $1" >&2
    tail -n 20 "$folder"/log/*.log >&2
    exit 1
}

umask 022
mkdir -p "$folder"/{bin,ctld,slurmd,log,munge}
chmod 0700 "$folder/munge"
if [ ! -s "$SLURM_CONF" ]; then
    dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
    chmod 0400 "$folder/munge/key"
    cat >"$SLURM_CONF" <<CONF
ClusterName=special
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/ctld
SlurmdSpoolDir=$folder/slurmd
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
# neither systemd nor cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
# cores, memory and GPUs are given out; the node may promise more cores than the machine has
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
GresTypes=gpu
# no accounting; every finished job is a line of text
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs.txt
KillWait=2
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 RealMemory=500000 Gres=gpu:4 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$host Default=NO MaxTime=INFINITE State=UP
CONF
    # a GPU without a device file is dropped by slurmd
    echo "NodeName=$host Name=gpu File=/dev/null,/dev/zero,/dev/full,/dev/random" >"$folder/gres.conf"
fi

# Snakemake's jobs call srun without any SLURM_ variable; elsewhere it would find its configuration in /etc
printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$SLURM_CONF" "$(PATH=${PATH//$folder\/bin:/} command -v srun)" >"$folder/bin/srun"
chmod +x "$folder/bin/srun"

# each daemon goes into the background and writes its pid file
runs munged || munged --force --socket "$folder/munge.socket" --key-file "$folder/munge/key" \
    --pid-file "$folder/munged.pid" --seed-file "$folder/munge/seed" --log-file "$folder/log/munged.log"
wait_for 10 munge -n -S "$folder/munge.socket" || give_up munged
runs slurmctld || slurmctld
wait_for 20 bash -c 'scontrol ping | grep -q "is UP"' || give_up slurmctld
runs slurmd || slurmd
wait_for 20 ready || give_up slurmd
sinfo -N -o '%N %P %T %c %m %G'
