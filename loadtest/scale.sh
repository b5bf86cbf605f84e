#!/bin/sh
# Asks what a message costs the server. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- scale "$@"
