#!/bin/sh
# Restarts a broker while everybody talks. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- restart --sessions 1000 "$@"
