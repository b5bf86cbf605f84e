#!/bin/sh
# Measures a scenario as a ratio to the floors: fanout, many-chats, latency, or a file. Further arguments are added.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- compare "$@"
