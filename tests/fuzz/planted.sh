#!/usr/bin/env bash
# Plants a bug for each target in a copy of the sources, and measures how long the fuzzer takes to find it.
#
# usage: planted.sh [target …]   LIMIT=120 is the time for each, in seconds. Needs cargo-fuzz.
# What stands in planted.tsv (target, file, text, text with the bug) is never in the product.
set -euo pipefail
cd "$(dirname "$0")/../.."
limit=${LIMIT:-120}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"
target_dir=${CARGO_TARGET_DIR:-$PWD/target/fuzz}
while IFS=$'\t' read -r _ file good bad; do
    good=${good//\\n/$'\n'} bad=${bad//\\n/$'\n'}
    source=$(cat "$copy/$file")
    [[ $source == *"$good"* ]] || { echo "$file: not there: $good" >&2; exit 1; }
    printf '%s\n' "${source/"$good"/"$bad"}" > "$copy/$file"
done < tests/fuzz/planted.tsv
cd "$copy"
CARGO_TARGET_DIR=$target_dir cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --features runtime
failed=0
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cut -f1 tests/fuzz/planted.tsv)
for target in "${targets[@]}"; do
    binary=$(find "$target_dir" -path "*/release/$target" -type f | head -1)
    mkdir -p "found/$target"
    start=$(date +%s%N)
    if "$binary" -max_total_time="$limit" -dict="tests/fuzz/dict/$target.dict" -artifact_prefix="found/$target/" \
        -print_final_stats=1 -seed=1 "found/$target" "tests/fuzz/corpus/$target" > "found/$target.log" 2>&1; then
        echo "$target: NOT FOUND in $limit s"
        failed=1
        continue
    fi
    seconds=$((($(date +%s%N) - start) / 10000000))
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "found/$target.log")
    printf '%s: found after %d.%02d s, %s runs: %s\n' "$target" $((seconds / 100)) $((seconds % 100)) "$runs" \
        "$(grep -m1 -A1 'panicked at' "found/$target.log" | tr '\n' ' ' | cut -c1-160)"
done
exit "$failed"
