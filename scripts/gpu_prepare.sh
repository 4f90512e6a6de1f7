#!/bin/sh
# Before a run on a machine without a network: sh scripts/gpu_prepare.sh DATA, in the root of a checkout.
# DATA holds mnist/*.gz as MNIST comes, and cifar100/{test,train-a,train-b}.tar.gz of {train,test}/CLASS/*.png.
# Made are .gpu-run with wheels for Python 3.12 and MNIST, .gpu-run-a and .gpu-run-b with a half of CIFAR-100's training
# set each, and .gpu-run-c with its test set, each less than 60 MB: small enough to be sent one by one.
set -eu
data=$1
for folder in .gpu-run .gpu-run-a .gpu-run-b .gpu-run-c; do
    mkdir -p $folder/data
    cp scripts/gpu_*.py scripts/gpu_run.sh $folder/
done
cp "$data"/mnist/*.gz .gpu-run/data/
cp "$data/cifar100/train-a.tar.gz" .gpu-run-a/data/
cp "$data/cifar100/train-b.tar.gz" .gpu-run-b/data/
cp "$data/cifar100/test.tar.gz" .gpu-run-c/data/
mkdir -p .gpu-run/whl
wheels=
for name in zarr numcodecs numkong donfig google-crc32c duckdb; do # what a machine for machine learning lacks
    wheels="$wheels $(python3 -c "from importlib.metadata import version; print('$name==' + version('$name'))")"
done
# shellcheck disable=SC2086 - a list of words
ls .gpu-run/whl/numkong-*.whl >/dev/null 2>&1 || python3 -m pip download -q --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    -d .gpu-run/whl $wheels
rm -f .gpu-run/whl/memdb_*.whl
python3 -m pip wheel -q --no-deps -w .gpu-run/whl . # the working tree of now
du -sm .gpu-run .gpu-run-a .gpu-run-b .gpu-run-c
