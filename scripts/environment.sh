# Sourced by demo.sh and test.sh: go to the repository's root and make a virtual environment there if it is not ready.
# VENV=dir uses another environment; PYTHON=python3.12 builds it with another interpreter; NEWEST=1 installs today's
# releases in place of the tested ones that scripts/constraints/ lists.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-.venv}"
mkdir -p "$VENV"
VENV="$(cd "$VENV" && pwd)"
# Contended threads are several times slower than one.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

python_tag() { "$1" -c 'import sys; print("py%d%d" % sys.version_info[:2])'; }

if [ -x "$VENV/bin/python" ]; then
  TAG="$(python_tag "$VENV/bin/python")"
  if [ -n "${PYTHON:-}" ] && [ "$(python_tag "$PYTHON")" != "$TAG" ]; then
    echo "$VENV was made with $("$VENV/bin/python" --version): remove it, or set VENV to another folder." >&2
    exit 1
  fi
else
  TAG="$(python_tag "${PYTHON:-python3}")"
fi
case "$TAG" in
  py310 | py311 | py312 | py313 | py314) ;;
  *) echo "Python 3.10 to 3.14 is needed, not $("${PYTHON:-python3}" --version): set PYTHON=python3.12." >&2; exit 1 ;;
esac
CONSTRAINTS="scripts/constraints/$TAG.txt"
[ -z "${NEWEST:-}" ] && [ -e "$CONSTRAINTS" ] || CONSTRAINTS=/dev/null

install_into_venv() {
  [ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV" || return 1
  local options=(-qq -c "$CONSTRAINTS")  # errors only
  "$VENV/bin/python" -m pip install "${options[@]}" --upgrade pip setuptools wheel || return 1
  "$VENV/bin/python" -m basicsr_distill.host.build "${options[@]}" || return 1
  "$VENV/bin/python" -m pip install "${options[@]}" --no-build-isolation -e '.[test]' || return 1
  "$VENV/bin/python" -c 'import basicsr_distill, basicsr' || return 1
}

# The marker holds what was installed and from where: a change of setup.py or of the tested versions installs again, an
# interrupted install starts over.
installed_by_now() { pwd; echo "$CONSTRAINTS"; cat setup.py "$CONSTRAINTS"; }
if ! installed_by_now | cmp -s - "$VENV/.installed"; then
  echo "Installing into $VENV (some minutes and 6 GB the first time) ..."
  install_into_venv || { echo "The installation failed; see the messages above." >&2; exit 1; }
  installed_by_now > "$VENV/.installed.part" && mv "$VENV/.installed.part" "$VENV/.installed"
fi
export PATH="$VENV/bin:$PATH"
