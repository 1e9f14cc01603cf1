#!/usr/bin/env bash
# Evaluates a checkpoint of a ResNet-50 in mixed precision.
# bash examples/RN50_AMP_EVAL.sh CONFIG CHECKPOINT [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec bash "$folder/exp/test.sh" "${1:?CONFIG is missing}" "${2:?CHECKPOINT is missing}" --amp bf16 --channels-last "${@:3}"
