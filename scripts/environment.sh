# Sourced by demo.sh and test.sh: go to the repository's root and make a virtual environment there if it is not ready.
# VENV=dir uses another environment; PYTHON=python3.12 builds it with another interpreter.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-.venv}"
mkdir -p "$VENV"
VENV="$(cd "$VENV" && pwd)"
# Contended threads are several times slower than one.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

install_into_venv() {
  local python="${PYTHON:-python3}"
  "$python" - <<'PY' || return 1
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f'Python {sys.version.split()[0]}: BasicSR 1.4.2 builds on Python 3.10 to 3.12. Set PYTHON=python3.12, or see '
             '"Python 3.13" in README.md.')
PY
  [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV" || return 1
  # BasicSR's build imports torch and is published as source only: with torch in place and no build isolation it is
  # downloaded once instead of twice.
  local pip=("$VENV/bin/python" -m pip install -qq)  # errors only
  "${pip[@]}" --upgrade pip 'setuptools>=68,<81' wheel cython numpy || return 1
  "${pip[@]}" torch torchvision || return 1
  "${pip[@]}" --no-build-isolation -e '.[test]' || return 1
  "$VENV/bin/python" -c 'import basicsr_distill, basicsr' || return 1
}

# The marker holds what was installed and from where: a changed setup.py installs again, an interrupted install starts over.
installed_by_now() { pwd; cat setup.py; }
if ! installed_by_now | cmp -s - "$VENV/.installed"; then
  echo "Installing into $VENV (some minutes and 6 GB the first time) ..."
  install_into_venv || { echo "The installation failed; see the messages above." >&2; exit 1; }
  installed_by_now > "$VENV/.installed.part" && mv "$VENV/.installed.part" "$VENV/.installed"
fi
export PATH="$VENV/bin:$PATH"
