#!/usr/bin/env bash
# Installs Chromium, in which a test opens the report and checks that its plots are drawn.
# Idempotent. Needs apt and root; exits 1 with one line when either is missing.
set -euo pipefail

for browser in chromium chromium-browser google-chrome; do
    if path=$(command -v "$browser"); then
        echo "install-system-packages: $path is already here"
        exit 0
    fi
done
if ! command -v apt-get >/dev/null; then
    echo "install-system-packages: no apt-get here; install Chromium by hand" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install-system-packages: not root; run 'sudo $0'" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends chromium
