#!/usr/bin/env bash
# A gibibyte through `lineframe inspect`, as a test that is too long for every day. What it prints is kept beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --quiet -p lineframe-cli --test commands -- --ignored --nocapture a_gibibyte_passes 2>/dev/null |
    grep 'inspect' | tee docs/inspect-gibibyte.txt
