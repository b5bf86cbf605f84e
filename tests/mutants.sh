#!/usr/bin/env bash
# Mutation testing: changes the rules one operator, one function at a time, and names the changes that no unit test sees.
#
# usage: mutants.sh [FILE of src …] [-- OPTION of cargo-mutants …]   Needs cargo-mutants (cargo install cargo-mutants --locked).
# Each file is put into a small crate of its own, with all else taken from the library as it is: so a change is compiled and
# tested in seconds. Fit for files whose unit tests stand alone, as the pure rules' do. Mutants that may live are named, with
# the reason, in .cargo/mutants.toml. What is found stays in mutants/NAME/ of the target directory; with `-- --iterate` only
# those are tried that were not caught before.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
command -v cargo-mutants >/dev/null || { echo "missing: cargo install cargo-mutants --locked" >&2; exit 1; }
files=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$1") && shift; done
[ $# -eq 0 ] || shift
[ ${#files[@]} -gt 0 ] || files=(src/broker/chat/state.rs src/broker/chat/fan_out.rs src/broker/chat/staging.rs
    src/broker/catch_up.rs src/broker/connection.rs src/broker/live_word.rs src/broker/outbox.rs src/store/batch.rs src/store/judgement.rs
    src/protocol/fold.rs src/protocol/keys.rs)
# A neighbour of whose inside a file makes use comes along.
declare -A neighbour=([broker/outbox]=outbox_budget)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/mutants}
failed=0
for file in "${files[@]}"; do
    crate=$work/crate
    rm -rf "$crate" && mkdir -p "$crate/src"
    cp Cargo.lock "$crate/"
    {
        printf '[package]\nname = "mutants"\nedition = "2024"\n\n[workspace]\n\n'
        # Without what a debugger needs a program is linked in a tenth of the time.
        printf '[profile.dev.package.mutants]\ndebug = false\nstrip = "debuginfo"\n\n'
        sed -n '/^\[dependencies\]/,/^\[/p' Cargo.toml | sed '$d' | sed 's/, optional = true//'
        printf 'sealcast = { path = "%s", features = ["fail-points"] }\n' "$root"
    } > "$crate/Cargo.toml"
    path=${file#src/}
    module=${path%.rs}
    mkdir -p "$crate/src/$(dirname "$path")"
    cp "$file" "$crate/src/$path"
    [ ! -d "src/$module" ] || cp -r "src/$module" "$crate/src/$module"
    beside=${neighbour[$module]:-}
    [ -z "$beside" ] || cp "$(dirname "$file")/$beside.rs" "$crate/src/$(dirname "$path")/"
    {
        echo '#![allow(warnings)]'
        echo 'pub use sealcast::*;'
        names=${module//\// }
        last=${names##* } parents=${names% *} at=sealcast closing=
        for parent in $parents; do
            at=$at::$parent closing="$closing }"
            echo "pub mod $parent { pub use $at::*;"
        done
        echo "pub mod $last;${beside:+ pub mod $beside;}$closing"
    } > "$crate/src/lib.rs"
    echo "== $file"
    found=$CARGO_TARGET_DIR/mutants/${module//\//-}
    mkdir -p "$found"
    (cd "$crate" && cargo mutants --in-place --no-shuffle --config "$root/.cargo/mutants.toml" \
        --file "src/$path" --file "src/$module/*.rs" --exclude '**/tests.rs' --exclude '**/tests/*.rs' \
        --timeout 60 --colors never --output "$found" "$@" -- --lib) || failed=1
done
exit "$failed"
