#!/usr/bin/env bash
# The published recipe on four GPUs in mixed precision: 64 images each.
# bash examples/RN50_AMP_4GPU.sh [CONFIG] [TITLE] [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROCESSES=4 exec bash "$folder/exp/starter.sh" "${1:-allsparse20}" "${2:-RN50_AMP_4GPU}" --amp bf16 --channels-last "${@:3}"
