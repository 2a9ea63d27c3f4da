#!/usr/bin/env bash
# Collects what a machine with a GPU and without a network lacks, into build/gpu (ignored by git; it travels with the tree):
# wheels for Python 3.12 on x86-64 Linux, at most 60 MiB, and the world of the quickstart.
# benchmarks/gpu/prepare.sh [INSTALLED]: INSTALLED lists what is there, as `pip list --format=freeze` prints it.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benchmarks/gpu installed=${1:-benchmarks/gpu/installed.txt} wheels=build/gpu/wheels limit=60
uv=${UV:-build/uv/bin/uv} python=${PYTHON:-.venv/bin/python}
[ -x "$uv" ] || make build/uv/bin/uv
mkdir -p "$wheels"

# Names of what is there, in one spelling; versions where they are known bind what is chosen.
spelled() { sed -E 's/[ =<>!~;[].*//; /^#|^$/d' "$1" | tr 'A-Z_.' 'a-z--' | sort -u; }
while IFS= read -r name; do
  [ -n "$name" ] || continue
  # One that cannot be had for such a machine does without: its part says "not run".
  printf '%s\n' "$name" > build/gpu/one.txt
  "$uv" pip compile --quiet --no-config --no-header --no-annotate --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
    --only-binary :all: --constraint "$installed" --constraint build/gpu/chosen.txt build/gpu/one.txt -o build/gpu/more.txt 2> build/gpu/why.txt ||
    { echo "left out: $name ($(tail -n 1 build/gpu/why.txt))" >&2; continue; }
  cat build/gpu/more.txt >> build/gpu/chosen.txt && sort -u -o build/gpu/chosen.txt build/gpu/chosen.txt
done < <(: > build/gpu/chosen.txt; grep -v '^#' "$here/needed.txt")
spelled "$installed" > build/gpu/there.txt
grep -v '^ ' build/gpu/chosen.txt | while IFS= read -r line; do
  name=$(printf '%s' "${line%%[=;]*}" | tr -d ' ' | tr 'A-Z_.' 'a-z--')
  grep -qx "$name" build/gpu/there.txt || printf '%s\n' "${line%%;*}"
done > build/gpu/missing.txt

rm -f "$wheels"/*.whl
platforms=(); for glibc in 28 27 26 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
"$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$wheels" --requirement build/gpu/missing.txt
size=$(du -sm "$wheels" | cut -f1)
[ "$size" -le "$limit" ] || { echo "the wheels take $size MiB, and $limit may travel; shorten $here/needed.txt" >&2; exit 1; }
rm -rf build/gpu/site-cp312
echo "$(ls "$wheels" | wc -l) wheels, $size MiB, in $wheels: $(ls "$wheels" | sed 's/-.*//' | tr '\n' ' ')"

# Without it the card would wait while a CPU builds the world.
[ -e build/gpu/world/full/world.json ] ||
  OMP_NUM_THREADS=1 "$python" -m qtarget.evaluation.tiny_world.world build/gpu/world/full --seed 0 > /dev/null
echo 'the world of the quickstart is in build/gpu/world/full'
