#!/usr/bin/env bash
# A search on the nodes of a Slurm job:  sbatch deploy/slurm.sh SPACE.yaml NAME [OPTION...]
# Submit it from a folder that all nodes share, where .venv holds this package: results/ and the
# checkpoints stay there. Before its time is up the job ends the search and goes back into the
# queue; when it comes up again, it goes on. (## is off: take one # away for GPUs.)
#SBATCH --job-name=tune-srs
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
##SBATCH --gpus-per-node=4
set -euo pipefail
space=$1 name=$2
shift 2
export PATH="$PWD/.venv/bin:$PATH"

# Ray listens to the whole network: who has not this user's token is turned away.
RAY_AUTH_TOKEN=$(ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0

# Where Ray's head will listen: this script runs on the first node. Other jobs may have Ray, too.
read -r address client < <(python - << 'PYTHON'
import socket

import ray

with socket.socket() as one, socket.socket() as two:
    one.bind(("", 0))
    two.bind(("", 0))
    print(f"{ray.util.get_node_ip_address()}:{one.getsockname()[1]}", two.getsockname()[1])
PYTHON
)

# The head here, and Ray on the other nodes; a node that dies later takes no more than itself.
ray start --block --head --port="${address##*:}" --ray-client-server-port="$client" \
  --include-dashboard=false --num-cpus="$SLURM_CPUS_ON_NODE" &
head=$! others=
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --relative=1 --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --no-kill \
    --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray start --block --address="$address" --num-cpus="$SLURM_CPUS_ON_NODE" &
  others=$!
fi
leave() {
  for node in $others $head; do  # in this order: without its head a node waits in vain
    kill "$node" || true
    wait "$node" || true
  done
}
trap leave EXIT

# A search takes the nodes that it finds, so first all must be there.
timeout 300 python - "$address" "$SLURM_JOB_NUM_NODES" << 'PYTHON'
import sys
import time

import ray

ray.init(address=sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
PYTHON

if [[ -e results/$name ]]; then set -- "$@" --resume; fi
tune-srs search "$space" --name "$name" --address "$address" --storage "$PWD/checkpoints" "$@" &
search=$! time_is_up=
end() { kill "$search" 2> /dev/null || true; }  # it ends as after Ctrl-C
trap end TERM
trap 'time_is_up=yes; end' USR1
status=0
wait "$search" || status=$?
while kill -0 "$search" 2> /dev/null; do  # a signal has only ended the wait
  status=0
  wait "$search" || status=$?
done
if [[ $time_is_up && $status -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
