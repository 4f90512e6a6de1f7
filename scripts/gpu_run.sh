#!/bin/sh
# On a machine with a GPU and PyTorch: sh FOLDER/gpu_run.sh stage | first SECONDS | last SECONDS [options of gpu_run.py]
# FOLDER is one that gpu_prepare.sh made; what it holds is gathered in $GPU_RUN_HOME, kept between calls.
# Results go to $OUT.
set -eu
home=${GPU_RUN_HOME:-/tmp/gpu-run} out=${OUT:-/tmp/gpu-run/out} from=$(dirname "$0")
mkdir -p "$home/data" "$out"
cp -r "$from/data/." "$home/data/"
cp "$from"/gpu_*.py "$home/"
if [ ! -d "$home/site" ] && [ -d "$from/whl" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$home/site" "$from"/whl/*.whl
fi
[ "${1:-stage}" = stage ] && exit 0
export PYTHONUNBUFFERED=1 PYTHONPATH="$home/site"
what=$1
{
    python3 "$home/gpu_run.py" "$@" --home "$home" --out "$out" 2>&1 || echo "exit code $?"
} | tee "$out/$what.log"
