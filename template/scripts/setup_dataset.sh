#!/usr/bin/env bash
# Download the data set for a stage of the project, or show what is there:
#
#     scripts/setup_dataset.sh debug        # a small one, to check that training runs
#     scripts/setup_dataset.sh production   # the one to train on, chosen by this machine's GPU memory
#     scripts/setup_dataset.sh info         # show the machine, its tier and which data sets are there
#
# Passes further arguments on to scripts/download.py, which does the work (use it directly on Windows).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" scripts/download.py --stage "${1:-info}" "${@:2}"
