#!/bin/sh
# Removes members of a busy chat. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- rotate "$@"
