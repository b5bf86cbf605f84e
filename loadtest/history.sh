#!/bin/sh
# Reads a long log from its start, its middle and its end. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- history --messages 1000000 "$@"
