#!/usr/bin/env bash
# What a GPU computes is what a processor computes, and how fast. For a machine with a GPU and
# Python's torch, and as much else of what this package needs as there is: what cannot be imported is
# skipped, and said. A folder `carried` beside `src` is searched first. Takes less than six minutes.
#
#   bash tests/gpu_check.sh [--device cuda]
#
# Ends with 1 where a check has failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src:tools:carried${PYTHONPATH:+:$PYTHONPATH}"
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

declare -A seconds=([machine]=40 [bank]=40 [models]=60 [engine]=110 [devices]=50 [bench]=60)
for part in machine bank models engine devices bench; do
  echo "--- $part"
  timeout --kill-after=5 "${seconds[$part]}" "${PYTHON:-python3}" -W ignore tests/gpu_check.py "$part" "$@" |
    tee -a "$lines"
  status=${PIPESTATUS[0]}
  if [ "$status" != 0 ]; then
    echo "fail: $part: ended with status $status" | tee -a "$lines"
  fi
done

passed=$(grep -c '^pass: ' "$lines")
skipped=$(grep -c '^skip: ' "$lines")
failed=$(grep -c '^fail: ' "$lines")
why=$(sed -n 's/^skip: //p' "$lines" | paste -sd ';' | sed 's/;/; /g')
echo "passed $passed, skipped $skipped${why:+ ($why)}, failed $failed"
[ "$failed" = 0 ]
