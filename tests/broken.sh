#!/usr/bin/env bash
# Breaks each promise once, in a copy of the sources, and sees that the test which guards it fails: an hour, in the background.
#
# usage: broken.sh [PROMISE …]
# A line of broken.tsv: promise, file, text, text with the bug, test. None of it is ever in the product.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/broken} RUST_BACKTRACE=0
failed=0
while IFS=$'\t' read -r promise file good bad test; do
    [ $# -eq 0 ] || [[ " $* " == *" $promise "* ]] || continue
    good=${good//\\n/$'\n'} bad=${bad//\\n/$'\n'}
    source=$(cat "$root/$file")
    [[ $source == *"$good"* ]] || { echo "$file: not there: $good" >&2; exit 1; }
    printf '%s\n' "${source/"$good"/"$bad"}" > "$copy/$file"
    cd "$copy"
    if ! cargo build --quiet -p sealcast --all-targets --features fail-points > "$copy/build.log" 2>&1; then
        tail -20 "$copy/build.log"
        echo "$promise: DOES NOT BUILD"
        failed=1
    elif log=$("$CARGO_TARGET_DIR/debug/examples/private-postgres" cargo nextest run -p sealcast --features fail-points \
        --retries 0 -E "test($test)" 2>&1); then
        echo "$promise: NOT SEEN by $test"
        failed=1
    elif grep -q "FAIL.*$test\|TIMEOUT.*$test\|SIG.*$test" <<< "$log"; then
        echo "$promise: seen by $test"
    else
        tail -20 <<< "$log"
        echo "$promise: $test was not run"
        failed=1
    fi
    cd "$root"
    cp "$file" "$copy/$file"
done < tests/broken.tsv
exit "$failed"
