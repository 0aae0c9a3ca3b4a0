#!/usr/bin/env bash
# The whole main job at demo size, with the very commands of the README: a made-up corpus, shards, both training
# stages, export, music, scores. Run it through `make demo`, which installs first.
#
#   launch/demo.sh [fetch|build|stage1|stage2|export|evaluate ...]      all of them, or those that are named
#
# Started again after an interruption it goes on where it stopped: every command leaves finished work alone.
#
#   DEMO_OUT    folder in which demo/ is made (here)
#   DEMO_SEED   seed of the corpus, the weights and the sampling (0); another seed wants another DEMO_OUT
#   DEMO_STEPS  "full", or "reduced" for a quick check that everything still fits together
set -euo pipefail

[ $# -gt 0 ] || set -- fetch build stage1 stage2 export evaluate
for name in "$@"; do
  [[ $name =~ ^(fetch|build|stage1|stage2|export|evaluate)$ ]] || {
    echo "error: there is no step $name, expected fetch, build, stage1, stage2, export or evaluate" >&2
    exit 2
  }
done

mkdir -p "${DEMO_OUT:-.}"
cd "${DEMO_OUT:-.}"
seed=${DEMO_SEED:-0}
# Big arrays in big pages: on Linux a step on the CPU takes a fifth less time. Other systems ignore it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
case "${DEMO_STEPS:-full}" in
  full) pieces=1600 stage1=() stage2=() scored=(--pieces 64) ;;
  reduced) pieces=200 stage1=(--steps 6) stage2=(--steps 8) scored=(--pieces 6 --show 2) ;;
  *) echo "error: DEMO_STEPS is ${DEMO_STEPS}, expected full or reduced" >&2; exit 2 ;;
esac

# A model this small leaks a stray drum hit now and then at temperature 1; a little lower it says what it means.
sampling=(--temperature 0.8 --top-p 0.95)

# One folder holds one demo: going on with other settings would mix two.
settings="seed $seed, steps ${DEMO_STEPS:-full}"
mkdir -p demo
if [ -e demo/settings ] && [ "$(cat demo/settings)" != "$settings" ]; then
  echo "error: $PWD/demo was begun with $(cat demo/settings), now it is $settings; remove it or set DEMO_OUT" >&2
  exit 2
fi
echo "$settings" > demo/settings

step() {
  printf '\n\033[1m[%3d s] python -m midillm_jax.%s\033[0m\n' "$SECONDS" "$*"
  python -m "midillm_jax.$1" "${@:2}"
}

# The made-up band stands where the data sets and the base model are fetched at full size.
fetch() {
  [ -d demo/band ] || step prepare demo --out demo/band --pieces "$pieces" --profile small --seed "$((2 * seed))"
  [ -d demo/band_alone ] || step prepare demo --out demo/band_alone --pieces "$((pieces / 2))" --profile small --seed "$((2 * seed + 1))"
}

build() {
  step prepare tokenizer --input demo/band_alone/text --vocab-size 1024 --out demo/tokenizer.model
  step prepare text --input demo/band_alone/text --tokenizer demo/tokenizer.model --out demo/shards/text
  step prepare midi --input demo/band_alone/midi --out demo/shards/midi
  step prepare pairs --input demo/band --out demo/shards/pairs
}

evaluate() {
  step generate --model demo/model --prompt "A calm waltz in C major for flute, piano and electric bass, without drums." \
    --seed "$seed" "${sampling[@]}" --out demo/music
  step evaluate --model demo/model --data demo/shards/pairs --runs demo/runs/stage1 demo/runs/stage2 \
    --seed "$seed" "${sampling[@]}" --out demo "${scored[@]}"
}

for name in "$@"; do
  case $name in
    stage1) step train --config demo_stage1.py --seed "$seed" ${stage1[@]+"${stage1[@]}"} ;;
    stage2) step train --config demo_stage2.py --seed "$seed" ${stage2[@]+"${stage2[@]}"} ;;
    # A shell has a command of this name already.
    export) step export --checkpoint demo/runs/stage2 --out demo/model ;;
    *) "$name" ;;
  esac
done
[ "$name" != evaluate ] || printf '\ndone in %d s; open demo/index.html\n' "$SECONDS"
