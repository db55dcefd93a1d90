#!/usr/bin/env bash
# What CI cannot see, on a machine with a GPU and in under ten minutes: the tests marked `gpu`, then a training step and
# a draw of DiT-XL/2 with random weights. The table goes to gpu_acceptance.md, for docs/BENCHMARKS.md.
#   PEAK_TFLOPS=989 bash scripts/gpu_acceptance.sh     of your GPU in bf16, dense; known for A100, H100, H200, L40S, RTX 4090
#   DEVICE=cpu SIZE=S SIZE_PX=64 bash scripts/gpu_acceptance.sh     the same without a GPU, to try the script
set -euo pipefail
source "$(dirname "$0")/environment.sh"
DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-XL} SIZE_PX=${SIZE_PX:-256} BATCH=${BATCH:-8} OUTPUT=${OUTPUT:-gpu_acceptance.md}

if [ "$DEVICE" = cpu ]; then
  name=$(uname -m)
else
  name=$(python -c 'import sys, torch
if not torch.cuda.is_available(): sys.exit("no GPU that torch can use; see `basicsr doctor`, or try with DEVICE=cpu")
print(torch.cuda.get_device_name())')
  python -m pytest -q -m gpu tests
fi
case "$name" in
  *H100*|*H200*) PEAK_TFLOPS=${PEAK_TFLOPS:-989} ;;
  *A100*) PEAK_TFLOPS=${PEAK_TFLOPS:-312} ;;
  *L40S*) PEAK_TFLOPS=${PEAK_TFLOPS:-362} ;;
  *4090*) PEAK_TFLOPS=${PEAK_TFLOPS:-165} ;;
esac

results=$(mktemp)
trap 'rm -f "$results"' EXIT
step() { echo "$*" >&2; "$@" | tee /dev/stderr | sed -n 's/^RESULT \(.*\)=\(.*\)$/| \1 | \2 |/p' >> "$results"; }
common=(--size "$SIZE" --size_px "$SIZE_PX" --batch "$BATCH" --device "$DEVICE" --rounds "${ROUNDS:-3}")
step python scripts/benchmark_finetune.py "${common[@]}" --no_plain --precisions fp32 bf16 \
  ${PEAK_TFLOPS:+--peak_tflops "$PEAK_TFLOPS"}
step python scripts/benchmark_sampling.py "${common[@]}"

{
  printf 'DiT-%s/2, %s px, batch %s, random weights, on %s, torch %s: `bash scripts/gpu_acceptance.sh`.\n\n' "$SIZE" \
    "$SIZE_PX" "$BATCH" "$name" "$(python -c 'import torch; print(torch.__version__)')"
  printf '| figure | value |\n| --- | --- |\n'
  cat "$results"
} > "$OUTPUT.part"
mv "$OUTPUT.part" "$OUTPUT"
cat "$OUTPUT"
