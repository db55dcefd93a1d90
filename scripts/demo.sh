#!/usr/bin/env bash
# The main job on real photographs, one command a step. Nothing is downloaded but packages; minutes on two CPU cores.
# Run it again and what is finished is skipped; remove demo/, datasets/demo*/ and experiments/ to start over.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# Photographs of the package and of scikit-image; two are kept back for testing.
python scripts/demo_photos.py demo/photos

# Patches -> pseudo-labels -> the best real patches -> a diffusion model -> a distilled set.
basicsr distill -opt options/distill/demo.yml

# What 5 and 20 images are worth, random, chosen or drawn: the same SR network trained on each, two seeds.
basicsr benchmark -opt options/benchmark/demo.yml

python scripts/demo_report.py
