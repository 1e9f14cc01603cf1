#!/usr/bin/env bash
# The published recipe on one GPU: steps of 256 images, taken in four parts of 64.
# bash examples/RN50_FP32_1GPU.sh [CONFIG] [TITLE] [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROCESSES=1 exec bash "$folder/exp/starter.sh" "${1:-allsparse20}" "${2:-RN50_FP32_1GPU}" --optimizer-batch-size 256 "${@:3}"
