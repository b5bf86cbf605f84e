#!/usr/bin/env bash
# Passes all tests, or says what is missing. Each step is one line that can be run alone.
#
# As root the integration tests run twice: as root, and as an ordinary user with a home of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=${RUST_BACKTRACE:-0}
server=(--no-default-features --features server)
client=(--no-default-features --features client)
# The tests break the broker at places that no shipped build has; the load test at the end runs one that is shipped.
broken=(--features fail-points)

step() { printf '\n== %s\n' "$*"; }
missing() { printf 'missing: %s\n' "$*" >&2; exit 1; }

step "tools"
command -v cargo >/dev/null || missing "cargo: install Rust with rustup, see https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || missing "rustfmt: rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || missing "clippy: rustup component add clippy"
if cargo nextest --version >/dev/null 2>&1; then
    run_tests=(cargo nextest run --no-fail-fast)
else
    echo "cargo-nextest is not here: cargo test runs the tests instead, which is slower (cargo install cargo-nextest --locked)"
    run_tests=(cargo test --no-fail-fast)
fi
cargo --version
# A command and the package that has it; root has it installed where there is apt-get.
needs() {
    if ! command -v "$1" >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    fi
    command -v "$1" >/dev/null || missing "$1: apt-get install $2, or your distribution's package of it"
}
needs promtool prometheus     # reads the metrics and the alert rules, as a Prometheus would
needs slowhttptest slowhttptest # reads and sends as slowly as it can
command -v chromium-browser google-chrome google-chrome-stable >/dev/null || needs chromium chromium # looks at the status page
promtool --version 2>&1 | head -1

step "format"
cargo fmt --all --check

step "clippy: everything, with fail points, the broker alone (and so the other allocator), the library alone"
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo clippy --quiet --workspace --all-targets "${broken[@]}" -- -D warnings
cargo clippy --quiet "${server[@]}" --all-targets -- -D warnings
cargo clippy --quiet "${client[@]}" --all-targets -- -D warnings

step "build: the broker alone, the library alone, everything"
cargo build --quiet "${server[@]}"
cargo build --quiet "${client[@]}"
cargo build --quiet --workspace --all-targets "${broken[@]}"

step "fuzz targets compile (their inputs are replayed by the tests)"
cargo clippy --quiet -p sealcast-fuzz --features targets --all-targets -- -D warnings

step "tests"
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
postgres=$target/debug/examples/private-postgres
"$postgres" "${run_tests[@]}" --workspace "${broken[@]}"
cargo test --quiet --workspace "${broken[@]}" --doc

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && getent passwd nobody >/dev/null; then
    step "integration tests as an ordinary user"
    home=$(mktemp -d)
    trap 'rm -rf "$home"' EXIT
    it=$(cargo test --no-run --workspace "${broken[@]}" --message-format json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -1)
    cp "$it" "$home/it"
    cp "$target/debug/sealcast" "$postgres" "$home/"
    mkdir "$home/tmp"
    chown -R nobody "$home"
    user=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups env -i "PATH=$PATH" "HOME=$home" "TMPDIR=$home/tmp"
        "SEALCAST_TEST_BROKER=$home/sealcast" "RUST_BACKTRACE=$RUST_BACKTRACE")
    (cd "$home" && "${user[@]}" "$home/private-postgres" "$home/it" --skip tidy --skip simulation:: --skip state_machine::)
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps

step "load test, short"
cargo run --quiet --release -p loadtest -- mixed --users 12 --sessions-per-user 2 --chats 6 --seconds 8

step "speed, short: what is delivered is checked, how fast it is not"
cargo run --quiet --release -p loadtest -- compare fanout --seconds 1 --repeat 1
cargo run --quiet --release -p loadtest -- compare many-chats --seconds 1 --repeat 1
cargo run --quiet --release -p loadtest -- idle --connections 200
cargo run --quiet --release -p loadtest -- compare many-chats --seconds 1 --repeat 1 --crypto full
cargo run --quiet --release -p loadtest -- history --messages 20000 --pages 20
cargo run --quiet --release -p loadtest -- rotate --sessions 60 --senders 5 --seconds 4 --repeat 1
cargo run --quiet --release -p loadtest -- scale --sizes 5,20 --connections 50 --loaded 100 --stored 300 --seconds 2
cargo bench --quiet -p loadtest -- --test
cargo run --quiet --release -p loadtest -- storm --sessions 200 --repeat 1
cargo run --quiet --release -p loadtest -- restart --sessions 100 --repeat 1
cargo run --quiet --release -p loadtest -- soak --seconds 15 --users 8 --chats 4

step "torture, two minutes; its history is judged again, and found damaged when it is"
history=$(mktemp)
trap 'rm -rf "$history" ${home:+"$home"}' EXIT
cargo run --quiet --release -p loadtest -- torture --minutes 2 --history "$history"
cargo run --quiet --release -p loadtest -- check --self-test "$history"

printf '\nall steps passed\n'
