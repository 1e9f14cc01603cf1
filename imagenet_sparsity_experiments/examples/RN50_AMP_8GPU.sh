#!/usr/bin/env bash
# The published recipe on eight GPUs in mixed precision: 32 images each.
# bash examples/RN50_AMP_8GPU.sh [CONFIG] [TITLE] [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROCESSES=8 exec bash "$folder/exp/starter.sh" "${1:-allsparse20}" "${2:-RN50_AMP_8GPU}" --batch-size 32 --amp bf16 --channels-last "${@:3}"
