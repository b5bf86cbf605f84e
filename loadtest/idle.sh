#!/bin/sh
# Weighs connections at rest. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- idle --connections 9000 "$@"
