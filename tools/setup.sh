#!/usr/bin/env bash
# Make .venv hold edgekd (editable), its extras and the development tools, in the pinned versions.
# Does nothing, and needs no network, when that is so already. Called by `make`.
#
#   EDGEKD_PYTHON=python3.12   take this interpreter (default: the first of python3, python3.13,
#                              ... python3.10 on PATH that is 3.10 to 3.13)
#   UV=/path/to/uv             take this uv (default: uv on PATH if recent enough, else a pinned
#                              one is installed into .uv/)
set -euo pipefail
cd "$(dirname "$0")/.."

UV_PIN=0.13.8
UV_FLOOR=0.8.0
PINS=constraints/workstation.txt
STAMP=.venv/.edgekd-stamp
UNFINISHED=.venv/.edgekd-unfinished
FOLDER=.venv/.edgekd-folder

export UV_PYTHON_DOWNLOADS=never # an interpreter is the machine's business
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
unset VIRTUAL_ENV

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    printf 'hint: %s\n' "$2" >&2
    exit 4
}

python_version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# uv says "uv 0.9.30 (...)"; compares the numbers, not the text.
uv_is_recent() {
    "$1" --version 2>/dev/null | "$PYTHON" -c '
import re, sys
numbers = lambda text: [int(n) for n in re.findall(r"\d+", text)[:3]]
found = re.search(r"\d+\.\d+\.\d+", sys.stdin.read())
sys.exit(not (found and numbers(found.group()) >= numbers(sys.argv[1])))' "$UV_FLOOR"
}

find_python() {
    local candidate version
    if [ -n "${EDGEKD_PYTHON:-}" ]; then
        version=$(python_version "$EDGEKD_PYTHON") ||
            die "EDGEKD_PYTHON=$EDGEKD_PYTHON does not run" "name an interpreter, e.g. EDGEKD_PYTHON=python3.11"
        case $version in
            3.1[0-3].*) PYTHON=$EDGEKD_PYTHON && return ;;
            *) die "EDGEKD_PYTHON=$EDGEKD_PYTHON is Python $version; edgekd runs on 3.10 to 3.13" \
                "name another one" ;;
        esac
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        version=$(python_version "$candidate") || continue
        case $version in
            3.1[0-3].*) PYTHON=$candidate && return ;;
        esac
    done
    die "no Python 3.10 to 3.13 on PATH" "install one, or set EDGEKD_PYTHON=/path/to/python3"
}

find_uv() {
    local candidate
    if [ -n "${UV:-}" ]; then
        uv_is_recent "$UV" || die "UV=$UV is not uv $UV_FLOOR or newer" "unset UV"
        return
    fi
    for candidate in uv "$PWD/.uv/bin/uv" "$PWD/.uv/lib/bin/uv"; do
        if uv_is_recent "$candidate"; then
            UV=$candidate
            return
        fi
    done
    say "installing uv $UV_PIN into .uv/"
    rm -rf .uv
    # A Debian python3 may come without ensurepip: then pip, if it is there, serves by itself.
    if "$PYTHON" -m venv .uv >/dev/null 2>&1 &&
        .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_PIN" >&2; then
        UV=$PWD/.uv/bin/uv
        return
    fi
    rm -rf .uv
    if "$PYTHON" -m pip install --quiet --target .uv/lib "uv==$UV_PIN" >&2; then
        UV=$PWD/.uv/lib/bin/uv
        return
    fi
    rm -rf .uv
    die "uv $UV_PIN could not be installed with $PYTHON" \
        "check that the package registry is reached; on Debian: apt-get install python3-venv"
}

# The .venv's own Python serves as long as it runs and is the one asked for; an install that was
# interrupted, or a folder that was moved, starts over rather than being mended.
is_usable() {
    local version asked
    [ ! -e "$UNFINISHED" ] && version=$(python_version .venv/bin/python) || return 1
    [[ $version == 3.1[0-3].* ]] || return 1
    [ ! -f "$FOLDER" ] || [ "$(cat "$FOLDER")" = "$PWD" ] || return 1
    [ -z "${EDGEKD_PYTHON:-}" ] && return
    asked=$(python_version "$EDGEKD_PYTHON") && [ "$asked" = "$version" ]
}

wanted() {
    python_version "$PYTHON"
    cat pyproject.toml "$PINS" tools/setup.sh
}

if is_usable; then PYTHON=.venv/bin/python; else find_python; fi
WANTED=$(wanted | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$PYTHON" = .venv/bin/python ] && [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$WANTED" ]; then
    exit 0
fi

find_uv
if [ "$PYTHON" != .venv/bin/python ]; then
    rm -rf .venv
    "$UV" venv --quiet --python "$PYTHON" .venv
fi
say "installing into .venv (Python $(python_version "$PYTHON")); the first time that is several GB, mostly torch"
rm -f "$STAMP"
: >"$UNFINISHED"
"$UV" pip install --quiet --python .venv/bin/python --constraints "$PINS" \
    --build-constraints "$PINS" --group dev --editable '.[all]'
printf '%s\n' "$PWD" >"$FOLDER"
printf '%s\n' "$WANTED" >"$STAMP"
rm -f "$UNFINISHED"
say "ready"
