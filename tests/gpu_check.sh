#!/usr/bin/env bash
# Whether a GPU computes what a processor computes, and how fast. Needs Python with torch; what else
# this package needs is used where it is there, and what is not is skipped, and said. A folder
# `carried` beside `src` is searched, too.
#
#   bash tests/gpu_check.sh [--device cuda]
#
# PYTHON is the interpreter, and SECONDS_IN_ALL the time that it may take. Ends with 1 if a check has
# failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src:tools:carried${PYTHONPATH:+:$PYTHONPATH}"
limit=${SECONDS_IN_ALL:-350}
lines=$(mktemp) errors=$(mktemp)
trap 'rm -f "$lines" "$errors"' EXIT

for part in machine bank models engine devices bench; do
  echo "--- $part"
  before=$(wc -l < "$lines")
  timeout --kill-after=5 $((limit > SECONDS ? limit - SECONDS : 1)) \
    "${PYTHON:-python3}" -W ignore tests/gpu_check.py "$part" "$@" 2> "$errors" | tee -a "$lines"
  case ${PIPESTATUS[0]} in
    0) ;;
    124 | 137) echo "fail: $part: took longer than the $limit s in all" | tee -a "$lines" ;;
    *) echo "fail: $part: ended at once; what it said stands below" | tee -a "$lines" ;;
  esac
  if tail -n +$((before + 1)) "$lines" | grep -q '^fail: '; then
    tail -n 40 "$errors"
    [ "$part" = machine ] && break
  fi
done

count() { grep -c "^$1: " "$lines"; }
why=$(sed -n 's/^skip: //p' "$lines" | paste -sd ';' | sed 's/;/; /g')
echo "passed $(count pass), skipped $(count skip)${why:+ ($why)}, failed $(count fail)"
[ "$(count fail)" = 0 ]
