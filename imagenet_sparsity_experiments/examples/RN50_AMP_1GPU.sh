#!/usr/bin/env bash
# The published recipe on one GPU in mixed precision: steps of 256 images at once.
# bash examples/RN50_AMP_1GPU.sh [CONFIG] [TITLE] [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROCESSES=1 exec bash "$folder/exp/starter.sh" "${1:-allsparse20}" "${2:-RN50_AMP_1GPU}" --batch-size 256 --amp bf16 --channels-last "${@:3}"
