#!/usr/bin/env bash
# A gibibyte through `lineframe send` and back, as a test that is too long for every day. What it prints is kept beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --quiet -p lineframe-cli --test commands -- --ignored --nocapture a_gibibyte_goes_both_ways 2>/dev/null |
    grep 'send' | tee docs/send-gibibyte.txt
