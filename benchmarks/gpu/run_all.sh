#!/usr/bin/env bash
# Measures all that needs a GPU, in at most SECONDS_ALLOWED (default 480): benchmarks/gpu/run_all.sh RESULTS [--tiny] [--parts abc]
# Safe to cut off at any moment; a second call does what is left. PYTHON names the interpreter (default python3).
set -euo pipefail
[ $# -ge 1 ] || { sed -n 2,3p "$0" >&2; exit 2; }
until=$(($(date +%s) + ${SECONDS_ALLOWED:-480}))
mkdir -p "$1" && results=$(cd "$1" && pwd) && shift
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
site=$PWD/build/gpu/site-$tag

# The checkout is the package qtarget; wheels that prepare.sh has collected are unpacked beside it, and no network is asked.
mkdir -p "$site" && ln -sfn ../../.. "$site/qtarget"
if compgen -G "build/gpu/wheels/*-$tag-*.whl" > /dev/null && [ ! -e "$site/.installed" ]; then
  "$python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" build/gpu/wheels/*.whl 2>> "$results/run.log" && touch "$site/.installed" ||
    echo 'the wheels could not be installed, see run.log; what needs them fails' >&2
fi
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
nvidia-smi -L > /dev/null 2>&1 || export TRITON_INTERPRET=1  # no GPU: the kernel is interpreted
call=$(date +%Y%m%dT%H%M%S)-$$

# A measurement may take its process with it; the next one goes on behind it.
while left=$((until - $(date +%s))) && [ "$left" -gt 5 ]; do
  status=0
  timeout --foreground --kill-after=5 "$left" "$python" -m benchmarks.gpu.run "$results" --until "$until" --call "$call" "$@" \
    2>> "$results/run.log" || status=$?
  case $status in
    0) break ;;
    2 | 3) tail -n 1 "$results/run.log" >&2 ; exit "$status" ;;
    1) [ -e "$results/unfinished.txt" ] || { tail -n 5 "$results/run.log" >&2; exit 1; } ;;
    124 | 137) echo 'the time is up; what is left waits for the next call' ; break ;;
  esac
done
"$python" -m benchmarks.gpu.table "$results"
