#!/usr/bin/env bash
# Makes every trial of the catalogue in docs/reliability.md in its full number, which takes hours. Arguments are nextest's.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEALCAST_TRIALS=all RUST_BACKTRACE=${RUST_BACKTRACE:-0}
cargo build --quiet --workspace --all-targets --features fail-points
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
exec "$target/debug/examples/private-postgres" cargo nextest run --workspace --features fail-points --profile trials \
    --no-fail-fast -E 'test(/catalogue::|simulation::|::p[0-9]+_/)' "$@"
