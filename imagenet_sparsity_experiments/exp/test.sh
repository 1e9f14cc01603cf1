#!/usr/bin/env bash
# Evaluates a checkpoint: bash exp/test.sh CONFIG CHECKPOINT [OPTION ...]
# Images: $DATA_DIR/imagenet/val, else datasets/imagenet/val. Processes: $PROCESSES, else 1. Files: runs/test.
# Options of main.py that follow are added and win, such as --arch resnet18.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash exp/test.sh CONFIG CHECKPOINT [OPTION ...]   (CONFIG: allsparse10, ignorefirst20, dense, ...)" >&2
    exit 2
fi
config=$1 checkpoint=$2
shift 2
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "${PYTHON:-python}" "$folder/multiproc.py" --nproc_per_node "${PROCESSES:-1}" "$folder/main.py" \
    "${DATA_DIR:-datasets}/imagenet" --arch resnet50 --model-config "$config" --workspace runs/test \
    --batch-size 64 --evaluate --pretrained-weights "$checkpoint" "$@"
