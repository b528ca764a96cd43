#!/usr/bin/env bash
# Everything that a GPU should say, in about 8 minutes: benchmarks/gpu.sh [FOLDER], which gets a JSON file for each question
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-output/gpu}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv > "$out/gpu.csv"

ask() { # NAME SECONDS COMMAND…: a question that takes too long is stopped, and the next one is asked
    local name=$1 seconds=$2
    shift 2
    timeout "$seconds" "$python" "$@" > "$out/$name.json" 2> "$out/$name.log" || echo "$name: exit code $?, see $out/$name.log"
}

# Against detectron2's own Mask R-CNN with ResNet-50: 16 images of 800x1333 at bf16; the goal is a ratio of 0.60
ask steps 60 benchmarks/steps.py --images 16 --size 800 1333 --precision bf16 --rounds 10
ask steps_channels_last 60 benchmarks/steps.py --images 16 --size 800 1333 --precision bf16 --rounds 10 --channels-last
ask steps_compiled 90 benchmarks/steps.py --images 16 --size 800 1333 --precision bf16 --rounds 10 --channels-last --compile
ask inference 40 benchmarks/inference.py --size 800 1333 --rounds 20
# Each model, eager and compiled, against timm's bare model
for model in resnet50 convnext_tiny swin_tiny_patch4_window7_224 vit_small_patch16_224 xcit_small_12_p8_224 regnety_016; do
    ask "$model" 60 benchmarks/models.py --models "$model" --images 8 --size 800 1333 --rounds 5
done
cat "$out"/*.json
