#!/bin/sh
# Lets sessions come back at once, and a few at a time. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- storm --sessions 5000 "$@"
