#!/bin/sh
# Stable-Baselines3's checker and MOMAland's wrappers, in .venv-conformance: what they pull in
# (games, physics engines) is no business of the project. Needs a package index.
set -eu
cd "$(dirname "$0")/../.."
venv=.venv-conformance
if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  # torch first, named as in the Makefile: left to itself pip may take a build of gigabytes.
  "$venv/bin/python" -m pip install --quiet "${TORCH:-torch==2.13.0}" -c constraints.txt
  "$venv/bin/python" -m pip install --quiet -c constraints.txt -e . stable-baselines3==2.9.2 momaland==0.2.0
fi
exec "$venv/bin/python" tests/conformance/others.py
