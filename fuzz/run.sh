#!/usr/bin/env bash
# Runs fuzz targets, with the stable compiler's own coverage instrumentation (needs g++).
#
#   fuzz/run.sh SECONDS [TARGET...]    run each target for SECONDS, starting from its kept corpus
#   fuzz/run.sh minimise [TARGET...]   replace each kept corpus with a smaller one of equal coverage
#   fuzz/run.sh replay [TARGET...]     run every kept input once: quick, for CI
#
# Failing inputs are written to fuzz/artifacts/TARGET, new corpus inputs to
# target/fuzz-corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")"
mode=${1:?usage: fuzz/run.sh SECONDS|minimise|replay [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(message open update session table bfd ndp mrt bmp)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../target/fuzz-run}
# With an explicit --target, RUSTFLAGS do not apply to build scripts, so those are not instrumented.
host=$(rustc -vV | sed -n "s/^host: //p")
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --release --target "$host"
for target in "${targets[@]}"; do
    kept=corpus/$target
    fresh=../target/fuzz-corpus/$target
    mkdir -p "$kept" "$fresh" "artifacts/$target"
    run=("$CARGO_TARGET_DIR/$host/release/$target" -artifact_prefix="artifacts/$target/" -timeout=30 -rss_limit_mb=1024 -max_len=8192)
    echo "== $target"
    case $mode in
        minimise)
            small=$(mktemp -d)
            "${run[@]}" -set_cover_merge=1 "$small" "$kept" "$fresh" 2>&1 | tail -n 1
            rm -rf "$kept" && mv "$small" "$kept" && chmod 755 "$kept"
            ;;
        replay) "${run[@]}" -runs=0 "$kept" 2>&1 | tail -n 1 ;;
        *) "${run[@]}" -max_total_time="$mode" -print_final_stats=1 "$fresh" "$kept" 2>&1 | grep -E '^(stat::|#[0-9]+.DONE|==|SUMMARY|thread)' ;;
    esac
done
