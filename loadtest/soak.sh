#!/bin/sh
# Loads a broker for half an hour and tells whether anything grows. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- soak "$@"
