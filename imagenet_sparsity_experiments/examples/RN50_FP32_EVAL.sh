#!/usr/bin/env bash
# Evaluates a checkpoint of a ResNet-50 in float32.
# bash examples/RN50_FP32_EVAL.sh CONFIG CHECKPOINT [OPTION ...]; images: $DATA_DIR/imagenet. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec bash "$folder/exp/test.sh" "${1:?CONFIG is missing}" "${2:?CHECKPOINT is missing}" "${@:3}"
