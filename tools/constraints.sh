#!/usr/bin/env bash
# Write constraints/*.txt anew from pyproject.toml. Pins that still fit are kept; `--upgrade`
# takes the newest. Called by `make constraints`.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_PYTHON_DOWNLOADS=never
UV=${UV:-uv}

compile() { # compile FILE COMMENT ARGUMENT...
    local file=$1 comment=$2 work
    shift 2
    work=$(mktemp)
    if [ -f "$file" ]; then cp "$file" "$work"; fi
    "$UV" pip compile pyproject.toml --quiet --no-header --no-annotate --no-emit-index-url \
        --no-emit-find-links --output-file "$work" "$@" >/dev/null
    {
        printf '# %s\n# Written by `make constraints`; not edited by hand.\n' "$comment"
        grep -v '^#' "$work"
    } >"$file"
    rm -f "$work"
}

compile constraints/workstation.txt \
    'Workstation: every extra and the development tools, Python 3.10 to 3.13.' \
    --universal --python-version 3.10 --all-extras --group dev --group tensorrt-bindings "$@"
compile constraints/device-py310-aarch64.txt \
    'Device: base, onnxruntime, openvino, dicom and sign on Python 3.10, aarch64, glibc 2.35 (JetPack 6).' \
    --python-version 3.10 --python-platform aarch64-manylinux_2_35 \
    --extra onnxruntime --extra openvino --extra dicom --extra sign "$@"
