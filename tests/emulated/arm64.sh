#!/bin/bash
# Python tests on an emulated arm64 processor: Debian's CPython, wheels, and the library, which
# zig compiles and links. Everything goes into a folder, and is there for the next run.
#
# usage: tests/emulated/arm64.sh FOLDER [pytest's arguments]
set -euo pipefail

mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
source=$(cd "$(dirname "$0")/../.." && pwd)

# Debian's packages, by lists of our own, so that the system's stay as they are.
if [ ! -e "$folder/debian/usr/bin/python3.11" ]; then
    mkdir -p "$folder"/apt/lists/partial "$folder"/apt/archives/partial "$folder"/packages
    touch "$folder/apt/status"
    options=(
        -o "Dir::State=$folder/apt" -o "Dir::State::lists=$folder/apt/lists" -o "Dir::State::status=$folder/apt/status"
        -o "Dir::Cache=$folder/apt" -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "APT::Sandbox::User=$(id -un)"
    )
    apt-get "${options[@]}" --quiet update
    cd "$folder/packages"
    apt-get "${options[@]}" --quiet download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libexpat1 \
        zlib1g libssl3 libffi8 libbz2-1.0 liblzma5 libgcc-s1 libstdc++6 libuuid1 libcrypt1
    for package in *.deb; do
        dpkg -x "$package" "$folder/debian"
    done
fi

if [ ! -e "$folder/wheels" ]; then
    python3 -m pip install --quiet --target "$folder/wheels.partial" --python-version 3.11 --only-binary :all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        click ml-dtypes numpy pyarrow pytest safetensors tqdm
    python3 -m pip install --quiet --target "$folder/zig" ziglang
    mv "$folder/wheels.partial" "$folder/wheels"
fi

mkdir -p "$folder/package"
cp -r "$source/pyarrowquant" "$source/tests" "$source/pyproject.toml" "$folder/package"
printf '#!/bin/sh\nexec "%s/zig/ziglang/zig" cc -target aarch64-linux-gnu.2.28 "$@"\n' "$folder" >"$folder/cc"
chmod +x "$folder/cc"
cd "$source"
CC="$folder/cc" CGO_ENABLED=1 GOOS=linux GOARCH=arm64 GOEXPERIMENT=simd go build -buildmode=c-shared -trimpath -buildvcs=false \
    -o "$folder/package/pyarrowquant/_pyarrowquant.so" ./cshim

cd "$folder/package"
exec qemu-aarch64 -L "$folder/debian" -E "PYTHONPATH=$folder/package:$folder/wheels" "$folder/debian/usr/bin/python3.11" \
    -m pytest -p no:cacheprovider -o filterwarnings=default "$@"
