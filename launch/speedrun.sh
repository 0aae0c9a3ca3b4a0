#!/usr/bin/env bash
# From two downloads, the base model and the data sets, to an exported model and its scores: fetch, build, both stages,
# export, evaluate. At demo size all of it happens here, in minutes; at 1B both stages run on a TPU slice.
#
#   launch/speedrun.sh --size 1b --slice v5litepod-16 --name N --zone Z --bucket gs://mine [options]
#   launch/speedrun.sh --size demo [--dry-run]
#
#   --size 1b                    configs/stage1.py and stage2.py
#   --slice T                    accelerator type, as launch/tpu_vm.sh takes it: v5litepod-16, v5p-16, v6e-16, v4-32
#   --name, --zone, --bucket, --project, --version, --spot, --reserved     as in launch/tpu_vm.sh
#   --gigamidi DIR               GigaMIDI's parquet files (gated) instead of Lakh for stage 1
#   --test-ids FILE              names of pieces that are kept for the evaluation, such as the paper's 896
#   --pieces N                   pieces that are evaluated (64)
#   --price-per-chip-hour P      for what the slice costs, in any currency; prices differ by region, commitment and year
#   --mbit N                     speed of this machine's network, for the times of transfers (100)
#   --out DIR                    stamps, model and scores (speedrun)
#   --yes                        does not ask before each download
#   --dry-run                    prints every step with its time and its cost, and does nothing
#
#   --size demo                  launch/demo.sh's steps; DEMO_OUT, DEMO_SEED and DEMO_STEPS count, none of the options above
#
# Works in the current folder: raw/, data/, models/Llama-3.2-1B (gated: `hf auth login` first) and --out; runs lie in the
# bucket. A step that is done leaves STEP.stamp, which says of what it was made: started again, the script goes on behind
# it, and with what was under way. What was made of something else is refused. The slice is given back when both stages are
# done; until then it costs.
#
# Wants midillm_jax[train,tpu,cloud], hf (of huggingface_hub) and gcloud. Not run at 1B: no TPU and no Google Cloud were at
# hand; --dry-run, going on, and the order of its commands are tested.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
fail() { echo "error: $*" >&2; exit 2; }
here=$(dirname "$0")
size='' slice='' name='' zone='' bucket='' project='' version='' tier='' gigamidi='' test_ids='' pieces=64 out=speedrun
price_per_chip_hour='' mbit=100 ask=() dry='' given=()
while [ $# -gt 0 ]; do
  case "$1" in
    --size | --slice | --name | --zone | --bucket | --project | --version | --gigamidi | --test-ids | --pieces | \
      --price-per-chip-hour | --mbit | --out)
      [ $# -ge 2 ] || fail "$1 wants a value; $0 --help shows how"
      field=${1#--}
      printf -v "${field//-/_}" %s "$2"
      [ "$field" = size ] || given+=("$1")
      shift 2
      ;;
    --spot | --reserved) tier=$1; given+=("$1"); shift ;;
    --yes) ask=(--yes); given+=("$1"); shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) fail "there is no option $1; $0 --help lists them" ;;
  esac
done

run() {
  printf '    '
  printf '%q ' "$@"
  printf '\n'
  [ -n "$dry" ] || "$@"
}
sum_of() { cksum < "$1" | cut -d ' ' -f 1; }
config() { printf '%s %s' "$1" "$(sum_of "$here/../configs/$1")"; }

# Each size has its steps, what each takes, of what each is made, and how it is done.

demo_steps=(fetch build stage1 stage2 export evaluate)
demo_estimates() {
  # Of a full demo, on a busy machine; docs/scaling.md says how they were found. "reduced" takes less.
  local seconds=(14 10 183 700 8 70) step
  for step in "${steps[@]}"; do
    printf '%s\t%s CPU s\t0 (this machine)\n' "$step" "${seconds[0]}"
    seconds=("${seconds[@]:1}")
  done
  printf 'all\t985 CPU s, for a full demo\t0\n'
}
demo_inputs() {
  printf 'seed %s, steps %s' "${DEMO_SEED:-0}" "${DEMO_STEPS:-full}"
  case $1 in stage1 | stage2) printf ', %s' "$(config "demo_$1.py")" ;; esac
}
demo_do() { run bash "$here/demo.sh" "$1"; }

full_steps=(check fetch build stage1 stage2 delete export evaluate)
full_estimates() {
  python "$here/../benchmarks/speedrun.py" --slice "$slice" --mbit "$mbit" --pieces "$pieces" \
    ${price_per_chip_hour:+--price-per-chip-hour "$price_per_chip_hour"} ${gigamidi:+--gigamidi}
}
full_inputs() {
  case $1 in
    check) printf '%s, %s, %s' "$slice" "$(config stage1.py)" "$(config stage2.py)" ;;
    fetch) printf 'meta-llama/Llama-3.2-1B, midicaps, musicpile, %s' "${gigamidi:-lakh}" ;;
    build) printf '%s%s' "$bucket" "${test_ids:+, test ids $(sum_of "$test_ids")}" ;;
    stage1 | stage2) config "$1.py" ;;
    delete) printf '%s in %s' "$name" "$zone" ;;
    export) printf 'bfloat16' ;;
    evaluate) printf '%s pieces' "$pieces" ;;
  esac
}
full_do() {
  local recipe base=models/Llama-3.2-1B data=("$here/data.sh" --tokenizer models/Llama-3.2-1B)
  data+=(${gigamidi:+--gigamidi "$gigamidi"} ${test_ids:+--test-ids "$test_ids"} ${ask[@]+"${ask[@]}"})
  case $1 in
    check)
      for recipe in stage1.py stage2.py; do
        run python -m midillm_jax.train --config "$recipe" --compile-only "$topology"
      done
      ;;
    fetch)
      run hf download meta-llama/Llama-3.2-1B --local-dir "$base" --exclude 'original/*'
      run "${data[@]}" --fetch-only
      ;;
    build)
      run "${data[@]}" --no-fetch --bucket "$bucket/data"
      run gcloud storage rsync --recursive "$base" "$bucket/$base"
      ;;
    stage1 | stage2)
      [ -n "$dry" ] || rm -f "$out/delete.stamp"
      slice_is_up=yes
      run "$here/tpu_vm.sh" up "${tpu[@]}" -- --config "$1.py"
      ;;
    delete)
      run "$here/tpu_vm.sh" delete "${where[@]}"
      slice_is_up=''
      ;;
    export)
      run python -m midillm_jax.export --checkpoint "$bucket/runs/stage2" --tokenizer "$base" --dtype bfloat16 --out "$out/model"
      ;;
    evaluate)
      run python -m midillm_jax.evaluate --model "$out/model" --data data/lakh_midicaps --pieces "$pieces" \
        ${test_ids:+--ids "$test_ids"} --out "$out/report"
      ;;
  esac
}

case $size in
  demo)
    [ ${#given[@]} = 0 ] || fail "${given[0]} does not go with --size demo; DEMO_OUT, DEMO_SEED and DEMO_STEPS do"
    kind=demo steps=("${demo_steps[@]}") out=${DEMO_OUT:-.}/demo
    ;;
  1b)
    kind=full steps=("${full_steps[@]}")
    for field in slice name zone bucket; do
      [ -n "${!field}" ] || fail "--size 1b needs --$field; $0 --help shows how"
    done
    [[ $pieces =~ ^[1-9][0-9]*$ ]] || fail "found --pieces $pieces, expected a number of 1 or more"
    for field in mbit price_per_chip_hour; do
      [[ ${!field} =~ ^([0-9]+([.][0-9]+)?)?$ ]] || fail "found --${field//_/-} ${!field}, expected a number"
    done
    [ -z "$test_ids" ] || [ -f "$test_ids" ] || fail "found --test-ids $test_ids, expected a file"
    where=(--name "$name" --zone "$zone" ${project:+--project "$project"})
    tpu=("${where[@]}" --type "$slice" --bucket "$bucket" ${version:+--version "$version"} ${tier:+"$tier"})
    # What it would refuse after hours of building it refuses now.
    "$here/tpu_vm.sh" up "${tpu[@]}" --dry-run -- --config stage1.py > /dev/null
    for tool in hf gcloud; do
      [ -n "$dry" ] || command -v "$tool" > /dev/null || fail "$tool is not installed; see $0 --help, or add --dry-run"
    done
    ;;
  *) fail "found --size '$size', expected demo or 1b" ;;
esac
estimates=$("${kind}_estimates")
estimate() { grep "^$1"$'\t' <<< "$estimates" | cut -f "$2"; }
topology=''
if [ "$kind" = full ]; then
  topology=$(estimate slice 2)
  echo "$slice is $topology: $(estimate slice 3)"
fi

doing='' slice_is_up='' before=''
# shellcheck disable=SC2329  # trap calls it
left_off() {
  local code=$?
  if [ $code != 0 ]; then
    [ -z "$doing" ] || echo "speedrun: $doing did not finish; the same command goes on there" >&2
    [ -z "$slice_is_up" ] || echo "speedrun: until it is given back the slice costs: $here/tpu_vm.sh delete ${where[*]}" >&2
  fi
  exit $code
}
[ -n "$dry" ] || trap left_off EXIT

for number in "${!steps[@]}"; do
  step=${steps[number]}
  inputs=$("${kind}_inputs" "$step")
  stamp=$out/$step.stamp
  case $step in
    # On which slice it trains is no matter of what is trained.
    check) stamp=$out/check.$slice.stamp ;;
    *)
      inputs+=${before:+, after $before}
      [ "$step" = delete ] || before="$step $(cksum <<< "$inputs" | cut -d ' ' -f 1)"
      ;;
  esac
  printf '\n%d of %d: %s\n' "$((number + 1))" "${#steps[@]}" "$step"
  printf '    time: %s\n    cost: %s\n' "$(estimate "$step" 2)" "$(estimate "$step" 3)"
  if [ -e "$stamp" ]; then
    [ "$(cat "$stamp")" = "$inputs" ] || fail "$stamp says that $step was made of '$(cat "$stamp")', and now it would be of '$inputs'; remove it and what the step made, or choose another folder"
    echo "    done before ($stamp)"
    continue
  fi
  doing=$step began=$SECONDS
  "${kind}_do" "$step"
  doing=''
  [ -z "$dry" ] || continue
  mkdir -p "$out"
  printf '%s\n' "$inputs" > "$stamp.partial"
  mv "$stamp.partial" "$stamp"
  echo "    done in $((SECONDS - began)) s"
done
printf '\nin all: %s\n  cost: %s\n' "$(estimate all 2)" "$(estimate all 3)"
[ "$kind" = demo ] || echo "Estimates: such steps were compiled and not run (docs/scaling.md); evaluations, checkpoints, start-up and waiting for the slice come on top."
