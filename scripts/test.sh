#!/usr/bin/env bash
# Everything that must hold before a change lands: lint, types, architecture, tests. Arguments go to pytest:
#   bash scripts/test.sh                 what CI runs
#   bash scripts/test.sh -m slow         the long tests
set -euo pipefail
source "$(dirname "$0")/environment.sh"
[ $# -gt 0 ] || set -- -m 'not slow'
ruff check .
ruff format --check .
mypy
lint-imports
exec python -m pytest "$@"
