#!/usr/bin/env bash
# Several machines under Slurm: one launcher a machine, started by `fit` itself; the other stages run
# on the first machine only. From a job of two machines, which share the repository's folder:
#
#   #SBATCH --nodes=2 --gpus-per-node=8 --ntasks-per-node=1
#   LAUNCH="srun bash configs/slurm_node.sh configs/fsdp_qlora.yaml" make repro
set -euo pipefail
config=$1
shift
gpus=$(nvidia-smi --list-gpus | wc -l)
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec accelerate launch --config_file "$config" \
  --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
  --num_processes "$((SLURM_NNODES * gpus))" \
  --main_process_ip "$first" --main_process_port 29500 "$@"
