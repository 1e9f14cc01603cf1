#!/usr/bin/env bash
# How long a ResNet-50 takes for a batch in float32, by batch size; random images, random weights.
# bash examples/RN50_FP32_INFERENCE_BENCHMARK.sh [CONFIG] [OPTION ...]. Not measured on a GPU yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for size in 1 2 4 8 16 32 64 128; do
    "${PYTHON:-python}" "$folder/main.py" --benchmark-inference --arch resnet50 --batch-size "$size" \
        --model-config "${1:-allsparse20}" --workspace "runs/RN50_FP32_INFERENCE_BENCHMARK" "${@:2}"
done
