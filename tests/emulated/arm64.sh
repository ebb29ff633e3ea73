#!/bin/bash
# Python tests of a wheel for arm64 on an emulated processor, with Debian's CPython. What is
# downloaded goes into a folder, and is there for the next run.
#
# usage: tests/emulated/arm64.sh FOLDER WHEEL [pytest's arguments]
set -euo pipefail

mkdir -p "$1"
folder=$(cd "$1" && pwd)
wheel=$(realpath "$2")
shift 2
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

install=(python3 -m pip install --quiet --python-version 3.11 --only-binary :all:)
for tag in 2_28 2_27 2_17; do
    install+=(--platform "manylinux_${tag}_aarch64")
done
if [ ! -e "$folder/wheels" ]; then
    "${install[@]}" --platform manylinux2014_aarch64 --target "$folder/wheels.partial" \
        click hypothesis ml-dtypes numpy pandas polars pyarrow pytest safetensors tqdm
    mv "$folder/wheels.partial" "$folder/wheels"
fi
rm -rf "$folder/package"
"${install[@]}" --no-deps --target "$folder/package" "$wheel"
cp -r "$source/tests" "$source/pyproject.toml" "$folder/package"

# The kernel runs no programs of arm64: children of a test get the emulator by this name of Python.
cat > "$folder/python" << END
#!/bin/bash
export PYTHONPATH="\${PYTHONPATH:+\$PYTHONPATH:}$folder/package:$folder/wheels"
exec qemu-aarch64 -L "$folder/debian" "$folder/debian/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"

cd "$folder/package"
exec "$folder/python" -c "
import sys
import pytest
sys.executable = '$folder/python'
sys.exit(pytest.main(['-p', 'no:cacheprovider', '-o', 'filterwarnings=default', *sys.argv[1:]]))
" "$@"
