#!/usr/bin/env bash
# Lint, types, architecture and tests:
#   bash scripts/test.sh                  what a change needs while it is made: five minutes on two cores
#   bash scripts/test.sh --all            everything that must hold before it lands, kills, ranks and full disks included: what CI runs
#   bash scripts/test.sh tests/ops -k psnr      arguments go to pytest, without lint and types; -m slow: the longest tests
set -euo pipefail
source "$(dirname "$0")/environment.sh"
case "${1:-}" in
  '') marked='not slow and not long' ;;
  --all) marked='not slow'; shift ;;
  *) exec python -m pytest "$@" ;;
esac
ruff check .
ruff format --check --quiet .
mypy
lint-imports
exec python -m pytest -n auto --dist worksteal -m "$marked" "$@"
