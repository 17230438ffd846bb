#!/usr/bin/env bash
# The whole test suite in two processes side by side, one thread each: many runtimes' thread pools in
# one process do not survive all forks, and two cores are what most machines have. What the first
# prints is shown when the second has ended.
set -uo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1

apart=(tests/export tests/losses tests/models tests/report tests/runtimes tests/sweep tests/tasks)
printed=$(mktemp)
trap 'kill %1 2>/dev/null; rm -f "$printed"' EXIT

.venv/bin/python -m pytest "${apart[@]}" >"$printed" 2>&1 &
.venv/bin/python -m pytest tests "${apart[@]/#/--ignore=}"
rest=$?
wait %1
first=$?
cat "$printed"
exit $((rest || first))
