#!/usr/bin/env bash
# Installs what tests use beside Python: Chromium, in which a test opens the report and checks that its plots
# are drawn; Clang, SIMDe's headers, and a compiler and an emulator of 64-bit ARM, for the native tests (make
# native-test); compilers of Cortex-M and of a big-endian machine, for tests of exported C.
# Idempotent. Needs apt and root; exits 1 with one line when either is missing.
set -euo pipefail

packages=()
has() {
    for program in "$@"; do
        if path=$(command -v "$program"); then
            echo "install-system-packages: $path is already here"
            return 0
        fi
    done
    return 1
}

has chromium chromium-browser google-chrome || packages+=(chromium)
echo 'int main(void) { return 0; }' | clang -fsanitize=address -x c - -o /dev/null 2>/dev/null ||
    packages+=(clang libclang-rt-dev)
[ -e /usr/include/simde/x86/avx512.h ] || packages+=(libsimde-dev)
has aarch64-linux-gnu-gcc || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
has arm-none-eabi-gcc || packages+=(gcc-arm-none-eabi libnewlib-arm-none-eabi)
has s390x-linux-gnu-gcc || packages+=(gcc-s390x-linux-gnu libc6-dev-s390x-cross)
has qemu-aarch64-static qemu-aarch64 || packages+=(qemu-user-static)

if [ "${#packages[@]}" -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install-system-packages: no apt-get here; install ${packages[*]} by hand" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install-system-packages: not root; run 'sudo $0'" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${packages[@]}"
