#!/usr/bin/env bash
# The main job on real photographs, one command a stage. Nothing is downloaded but packages; minutes on two CPU cores.
# Run it again and every finished stage is skipped; remove demo/, experiments/ and results/ to start over.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# Photos: scikit-image's own; two are kept back for testing.
python scripts/demo_photos.py demo/photos

# Patches -> pseudo-labels -> a diffusion model -> a distilled set; and as many random crops to compare it with.
basicsr distill -opt options/distill/demo.yml
basicsr distill -opt options/distill/demo_random.yml --stage extract

# The same SR network on both, side by side on two cores.
for set in distilled random; do
  basicsr train -opt "options/train/EDSR/train_EDSR_x4_demo_$set.yml" --auto_resume > "demo/train_$set.log" 2>&1 &
done
echo "Training EDSR on the distilled set and on random crops (demo/train_distilled.log, demo/train_random.log) ..."
for job in $(jobs -p); do wait "$job" || { tail -n 20 demo/train_*.log >&2; exit 1; }; done

for set in distilled random; do
  if [ ! -e "results/EDSR_x4_demo_$set/metrics.json" ] ||
     [ "experiments/EDSR_x4_demo_$set/models/net_g_latest.pth" -nt "results/EDSR_x4_demo_$set/metrics.json" ]; then
    basicsr test -opt "options/test/EDSR/test_EDSR_x4_demo_$set.yml" > "demo/test_$set.log" 2>&1 ||
      { tail -n 20 "demo/test_$set.log" >&2; exit 1; }
  fi
done

python scripts/demo_report.py
