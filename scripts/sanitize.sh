#!/bin/sh
# Compile the Python module with AddressSanitizer and UndefinedBehaviorSanitizer and run on it the
# tests of hostile use of the native runtime: bad input, changed memory, damaged files, random plans, threads.
#
#   scripts/sanitize.sh PYTHON [arguments of pytest]
#
# PYTHON has the package's dependencies and pytest. Says SKIPPED where the compiler is not GCC with a
# shared AddressSanitizer, and writes it to the file SKIPPED_LOG.
set -eu
skip() {
    echo "SKIPPED sanitize: $1" | tee -a "${SKIPPED_LOG:-/dev/null}"
    exit 0
}
python=$1
shift
cd "$(dirname "$0")/.."
compiler=${CC:-cc}
if "$compiler" --version | grep -qi clang; then
    skip "$compiler is Clang, whose AddressSanitizer is not loaded before Python"
fi
libraries=
for name in libasan.so libstdc++.so; do # libstdc++: exceptions are watched from the beginning
    library=$("$compiler" -print-file-name=$name 2>/dev/null || true)
    case $library in
    /*) libraries="$libraries $library" ;;
    *) skip "$compiler has no $name" ;;
    esac
done

# An environment of its own beside that of PYTHON, whose editable install it does not see.
build=$PWD/build/sanitize
flags='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1'
"$python" -m venv --without-pip "$build/venv"
own=$("$build/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$own/base.pth"
isolation= # without CMake, pip brings its own
! command -v cmake >/dev/null || isolation=--no-build-isolation
"$build/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall \
    $isolation \
    -C build-dir="$build/cmake" -C install.strip=false -C cmake.build-type=Debug \
    -C cmake.define.CMAKE_C_FLAGS="$flags" -C cmake.define.CMAKE_CXX_FLAGS="$flags" .

rm -f "$build"/report.*
export LD_PRELOAD="${libraries# }"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path="$build/report"
export UBSAN_OPTIONS=print_stacktrace=1:log_path="$build/report"
[ $# -gt 0 ] || set -- -q -p no:cacheprovider tests/native/test_native.py tests/unit/execute/test_native_*.py
"$build/venv/bin/python" -m pytest "$@" || {
    code=$?
    unset LD_PRELOAD
    cat "$build"/report.* >&2 2>/dev/null || true
    exit $code
}
