#!/usr/bin/env bash
# Get the data for a stage of the project, or see what there is:
#
#     scripts/setup_dataset.sh debug        # the small data set that shows whether everything runs
#     scripts/setup_dataset.sh production   # the one to train on, as much of it as this machine's GPUs can take
#     scripts/setup_dataset.sh info         # the machine, its tier, and which data sets are there
#
# Further arguments go to scripts/download.py, which does the work (and is the way on Windows).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" scripts/download.py --stage "${1:-info}" "${@:2}"
