#!/usr/bin/env bash
# build.sh DIR [native|avx2|candle]...: builds llama.cpp with clang, through the source package of llama-cpp-python, into
# virtual environments DIR/native (everything this CPU has) and DIR/avx2 (neither AVX-512 nor AMX nor AVX-VNNI), and
# candle's models for this CPU into DIR/candle; all by default.
#
# clang, because gcc 12 drops half of the stores of AMX's tile configuration and the library then crashes in ldtilecfg.
# --no-cache-dir, because pip's cache of built wheels does not look at CMAKE_ARGS and would give the first build twice.
set -euo pipefail
dir=${1:?usage: build.sh DIR [native|avx2|candle]...}
shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

newest() {
    for version in "" $(seq -f -%g 30 -1 14); do
        command -v "$1$version" && return
    done
    echo "$1 is needed (Debian: apt install clang-19 libomp-19-dev)" >&2
    exit 1
}
without_wide="-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
-DGGML_AVX_VNNI=OFF -DGGML_AVX512=OFF -DGGML_AVX512_VBMI=OFF -DGGML_AVX512_VNNI=OFF -DGGML_AVX512_BF16=OFF \
-DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF"

[ $# -gt 0 ] || set -- native avx2 candle
for flavour in "$@"; do
    if [ $flavour = candle ]; then
        RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path "$here/candle/Cargo.toml" --target-dir "$dir/candle"
        continue
    fi
    CC=${CC:-$(newest clang)}
    CXX=${CXX:-$(newest clang++)}
    export CC CXX
    python3 -m venv "$dir/$flavour"
    "$dir/$flavour/bin/pip" install -q -r "$here/requirements.txt"
    if [ $flavour = native ]; then isa="-DGGML_NATIVE=ON"; else isa=$without_wide; fi
    CMAKE_ARGS="$isa -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF" \
        "$dir/$flavour/bin/pip" install --no-cache-dir --no-binary llama-cpp-python -r "$here/peer.txt"
    "$dir/$flavour/bin/python" "$here/peer.py" --system-info
done
