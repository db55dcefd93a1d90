#!/usr/bin/env bash
# A Slurm of one node in FOLDER, until this script ends: munged, slurmctld and slurmd as the user that calls it (root).
#     bash tests/slurm/node.sh FOLDER &        # prints "ready" once jobs can be submitted
#     export SLURM_CONF=FOLDER/slurm.conf
# Needs Debian's packages slurm-wlm and munge. No database of accounts: sacct has nothing to say.
set -euo pipefail
folder=$(realpath -m "$1")
mkdir -p "$folder"/{state,spool,munge}
chmod 700 "$folder/munge"
host=$(hostname -s)

(umask 077; head -c 1024 /dev/urandom > "$folder/munge/key")
cat > "$folder/slurm.conf" <<END
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=${SLURM_PORTS_FROM:-16817}
SlurmdPort=$((${SLURM_PORTS_FROM:-16817} + 1))
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf

trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
trap 'exit 0' TERM INT
munged --foreground --force --key-file "$folder/munge/key" --socket "$folder/munge/socket" \
  --pid-file "$folder/munge/pid" --log-file "$folder/munge/log" --seed-file "$folder/munge/seed" &
until [ -S "$folder/munge/socket" ]; do sleep 0.1; done
slurmctld -D > "$folder/slurmctld.out" 2>&1 &
slurmd -D -N "$host" > "$folder/slurmd.out" 2>&1 &
for _ in $(seq 300); do
  if sinfo --noheader --format %T 2> /dev/null | grep -q '^idle$'; then
    echo ready
    wait
    exit 1
  fi
  sleep 0.1
done
tail -n 20 "$folder"/*.out "$folder"/*.log >&2
exit 1
