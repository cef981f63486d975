#!/usr/bin/env bash
# What is to be measured on a lent GPU, most valuable first: at most 9 minutes a call, every call goes on from the last.
#
#   here     benchmarks/gpu_agenda.sh pack       photographs and missing wheels into .agenda/; `carry` what it lists
#   there    benchmarks/gpu_agenda.sh [run]      do what benchmarks/results/ has not; results and state into $OUT
#   there    benchmarks/gpu_agenda.sh parts N    the state's parts from N on into $OUT, where one call did not hold all
#   there    benchmarks/gpu_agenda.sh bring      keep parts that were carried, where one call could not carry all
#   here     benchmarks/gpu_agenda.sh take DIR   results and weights into benchmarks/, the state's parts into .agenda/
#
# While the machine stays warm AGENDA_WORK is still there, and none of pack, parts, bring is needed a second time.
# It needs what PyTorch, torchvision and lightning bring along, besides wheels of pydantic and safetensors from pack.
# Without a GPU: AGENDA_DEVICE=cpu AGENDA_MINUTES=1 does all of it in miniature, and keeps its results in AGENDA_WORK.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} work=${AGENDA_WORK:-rgsud-runs/agenda} minutes=${AGENDA_MINUTES:-9}
device=${AGENDA_DEVICE:-cuda} carried=${AGENDA_CARRIED:-.agenda} part=${AGENDA_PART_BYTES:-16000000}
at_once=3  # parts in one $OUT, beside the results and the weights: 64 MiB together

pack() {
    mkdir -p "$carried/wheels"
    git describe --always --dirty >"$carried/commit"
    tar -C "${AGENDA_DATA:-../shared/data}" -chf "$carried/data.tar" rain100L clean_bsds
    platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 28 27 17; printf -- '--platform manylinux2014_x86_64')
    names='pydantic|pydantic-core|annotated-types|typing-inspection|typing-extensions|safetensors'
    # shellcheck disable=SC2046,SC2086 # words on purpose; the versions are requirements.lock's
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
        -d "$carried/wheels" $(sed -nE "s/^(($names)==[^ ;]*).*/\1/p" requirements.lock)
    du -ch "$carried"/{wheels,data.tar,commit} "$carried"/state/* 2>/dev/null || true
}

count() { # how many parts the state has, of the file that says so and when it was made
    cut -d' ' -f1 "$1"
}

bring() {
    mkdir -p "$work/incoming"
    find "$carried/state" -type f -exec cp {} "$work/incoming/" \; 2>/dev/null || true
}

unpack() {
    bring
    if [ ! -d "$work/stages" ] && [ -f "$work/incoming/parts" ] &&
        [ "$(find "$work/incoming" -name 'state.*' | wc -l)" -eq "$(count "$work/incoming/parts")" ]; then
        echo "going on from the state that was carried along"
        cat "$work"/incoming/state.* | tar -C "$work" -x
    fi
    data=${AGENDA_DATA:-}
    for folder in shared/data ../shared/data "$work/data"; do
        [ -n "$data" ] || [ ! -d "$folder/rain100L" ] || data=$folder
    done
    if [ -z "$data" ]; then
        data=$work/data
        mkdir -p "$data" && tar -C "$data" -xf "$carried/data.tar"
    fi
    export PYTHONPATH=$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH} RGSUD_TRACKING=off PYTHONUNBUFFERED=1
    [ ! -f "$carried/commit" ] || RGSUD_COMMIT=$(cat "$carried/commit") && export RGSUD_COMMIT
    "$python" -c 'import pydantic, safetensors' 2>/dev/null ||
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$carried"/wheels/*.whl
}

# What comes back: results and weights in one file; the work so far, but for pictures that can be read again, in parts.
keep() {
    rm -rf "$work/parts" && mkdir -p "$work/parts" "$work/results" "$work/weights"
    tar -C "$work" -cf "$work/parts/kept.tar" results weights
    tar -C "$work" --exclude='./stages/prepare-*/images' --exclude=./data --exclude=./site --exclude=./incoming \
        --exclude=./parts --exclude=./results --exclude=./weights -c . |
        split -b "$part" -d -a 3 - "$work/parts/state."
    echo "$(find "$work/parts" -name 'state.*' | wc -l) $(date +%s)" >"$work/parts/parts"
    parts 0
    cp "$work/parts/kept.tar" "${OUT:-$work/out}/"
}

parts() {
    out=${OUT:-$work/out}
    mkdir -p "$out" && cp "$work/parts/parts" "$out/"
    all=$(count "$work/parts/parts")
    for number in $(seq "$1" $(($1 + at_once < all ? $1 + at_once - 1 : all - 1))); do
        cp "$work/parts/state.$(printf %03d "$number")" "$out/"
    done
    [ $(($1 + at_once)) -ge "$all" ] || echo "the state has $all parts; \`parts $(($1 + at_once))\` hands out the next"
}

run() {
    mkdir -p "$work" && work=$(cd "$work" && pwd) && unpack
    status=0 patience=30
    [ "$device" = cuda ] || patience=600 # a busy CPU's step may take long
    # SIGTERM makes a training save and stop; a tenth of the time is for that and for packing.
    timeout --kill-after=$patience "$(awk "BEGIN { print 54 * $minutes }")" \
        "$python" benchmarks/gpu_agenda.py --data "$data" --work "$work" --device "$device" || status=$?
    keep
    case $status in 0) ;; 124 | 137) echo "time is up; the same command goes on" ;; *) exit "$status" ;; esac
}

take() {
    tar -C benchmarks -xf "$1/kept.tar"
    mkdir -p "$carried/state"
    [ ! -f "$carried/state/parts" ] || cmp -s "$1/parts" "$carried/state/parts" || rm -f "$carried"/state/*
    cp "$1"/state.* "$1/parts" "$carried/state/"
    echo "$(find "$carried/state" -name 'state.*' | wc -l) of $(count "$1/parts") parts of the state are here"
}

case ${1:-run} in
    pack | bring | run) "${1:-run}" ;;
    parts | take) "$1" "${2:?which?}" ;;
    *) sed -n '2,12p' "$0" && exit 2 ;;
esac
