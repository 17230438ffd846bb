#!/usr/bin/env bash
# Unpack the oldest and the newest Python bindings of TensorRT, in the pinned versions, into
# .venv/tensorrt-bindings/cu12 and cu13: the tests read their names and signatures. No TensorRT
# library comes with them, and none is needed. Both would fill one folder of an environment, so
# neither is installed into it. Does nothing when they are there; called by `make setup`.
#
# Where the registry or this Python has none, the tests that need them are skipped, with a reason.
set -euo pipefail
cd "$(dirname "$0")/.."

PINS=constraints/workstation.txt
PYTHON=.venv/bin/python
HOME_OF=.venv/tensorrt-bindings
STAMP=$HOME_OF/.stamp

say() { printf 'setup: %s\n' "$*" >&2; }

pins() { grep -E '^tensorrt-cu1[23]-bindings==' "$PINS"; }

WANTED=$({ "$PYTHON" --version && pins; } | cksum)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$WANTED" ]; then exit 0; fi

for UV in "${UV:-uv}" .uv/bin/uv .uv/lib/bin/uv ''; do
    if [ -n "$UV" ] && "$UV" --version >/dev/null 2>&1; then break; fi
done
rm -rf "$HOME_OF"
while read -r pin; do
    folder=$HOME_OF/$(sed -E 's/^tensorrt-(cu1[23])-.*/\1/' <<<"$pin")
    if ! "$UV" pip install --quiet --python "$PYTHON" --no-deps --target "$folder" "$pin" >&2; then
        say "no ${pin%% *} for this Python here: the tests that compare with it are skipped"
        exit 0
    fi
done < <(pins)
mkdir -p "$HOME_OF"
printf '%s\n' "$WANTED" >"$STAMP"
