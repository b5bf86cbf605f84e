#!/bin/sh
# Runs the documented mixed load on a broker and a Postgres of its own. Arguments are added, and outrank what is here.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p loadtest -- mixed --users 50 --sessions-per-user 2 --chats 20 --seconds 20 "$@"
