#!/usr/bin/env bash
# Trains with the published recipe: bash exp/starter.sh CONFIG TITLE [OPTION ...]
# Images: $DATA_DIR/imagenet, else datasets/imagenet. Processes: $PROCESSES, else 4, one for each GPU; 64 images
# each. Files: runs/TITLE. If a process is lost, the run is restarted, at most $MAX_RESTARTS times (default: 0).
# Options of main.py that follow are added and win, such as --resume auto.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash exp/starter.sh CONFIG TITLE [OPTION ...]   (CONFIG: allsparse10, ignorefirst20, dense, ...)" >&2
    exit 2
fi
config=$1 title=$2
shift 2
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "${PYTHON:-python}" "$folder/multiproc.py" --nproc_per_node "${PROCESSES:-4}" \
    --max_restarts "${MAX_RESTARTS:-0}" "$folder/main.py" \
    "${DATA_DIR:-datasets}/imagenet" --arch resnet50 --model-config "$config" --workspace "runs/$title" \
    --epochs 100 --batch-size 64 --lr 0.256 --lr-schedule cosine --warmup 5 --momentum 0.875 \
    --weight-decay 3.0517578125e-05 --label-smoothing 0.1 "$@"
