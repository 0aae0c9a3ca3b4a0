#!/usr/bin/env bash
# The model in the box from its data: shards, both training stages, export and scores.
#
#   launch/mini.sh --midi DIR --text DIR [--manifest TABLE] [--drums "NAME ..."] [--leave-out "NAME ..."]
#                  [--leave-out-text "GLOB ..."] [--band PIECES] [--smollm2 DIR] [--data-only] [--dry-run]
#
#   --midi DIR         folder of folders of MIDI files; those that --drums names are weighted up
#   --manifest TABLE   what is known of each file (docs/data.md)
#   --text DIR         music text
#   --leave-out        folders of MIDI files that are not used; --leave-out-text for text files
#   --band PIECES      pieces of the rule-playing band beside the real ones (1600)
#   --smollm2 DIR      trains SmolLM2-135M (this folder) on the same data instead (configs/mini_smollm2_stage1.py)
#   --data-only        makes the shards and stops; with --smollm2, those too that only it needs
#
# Works in the current folder: shards in mini/, runs in runs/, the model in mini/model, its scores in mini/report, or with
# --smollm2 in mini/smollm2_model and mini/smollm2_report. Started again it goes on where it stopped.
set -euo pipefail

midi='' text='' manifest='' drums='' leave_out='' leave_out_text='' band=1600 smollm2='' data_only='' dry=''
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --midi | --text | --manifest | --drums | --leave-out | --leave-out-text | --band | --smollm2)
      [ $# -ge 2 ] || { echo "error: $1 wants a value; $0 --help shows how" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    --data-only) data_only=yes; shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) echo "error: there is no option $1; $0 --help lists them" >&2; exit 2 ;;
  esac
done
for folder in "$midi" "$text"; do
  [ -d "$folder" ] || { echo "error: --midi and --text want folders, found '$folder'" >&2; exit 2; }
done

step() {
  printf '\n%s' 'python -m midillm_jax.'
  printf '%q ' "$@"
  printf '\n'
  [ -n "$dry" ] || python -m "midillm_jax.$1" "${@:2}"
}
read -ra drums <<< "$drums"
read -ra leave_out <<< "$leave_out"
read -ra leave_out_text <<< "$leave_out_text"
others=()
for folder in "$midi"/*/; do
  name=$(basename "$folder")
  [[ " ${drums[*]-} " == *" $name "* ]] || others+=("$name")
done
# --exclude with nothing behind it is not an option.
without() { [ $# -eq 0 ] || printf '%s\n' --exclude "$@"; }
mapfile -t not_used < <(without ${leave_out[@]+"${leave_out[@]}"})
mapfile -t no_drums < <(without ${drums[@]+"${drums[@]}"})
mapfile -t only_drums < <(without ${others[@]+"${others[@]}"})
mapfile -t not_read < <(without ${leave_out_text[@]+"${leave_out_text[@]}"})

held_out=(--validation-share 0.08)
[ -e mini/captions.jsonl ] || step prepare caption --input "$midi" ${manifest:+--manifest "$manifest"} --captions 6 \
  --out mini/captions.jsonl ${not_used[@]+"${not_used[@]}"}
[ -d mini/rule ] || step prepare demo --out mini/rule --pieces "$band" --profile full --seed 7
step prepare pairs --input mini/captions.jsonl --out mini/real "${held_out[@]}"
step prepare pairs --input mini/captions.jsonl --out mini/melodic "${held_out[@]}" ${no_drums[@]+"${no_drums[@]}"}
step prepare pairs --input mini/captions.jsonl --out mini/drums "${held_out[@]}" ${only_drums[@]+"${only_drums[@]}"}
step prepare pairs --input mini/rule --out mini/band
if [ -n "$smollm2" ]; then
  step prepare text --input "$text" --tokenizer "$smollm2" --out mini/text_smollm2 ${not_read[@]+"${not_read[@]}"}
fi
[ -e mini/text4096.model ] || step prepare tokenizer --input "$text" mini/captions.jsonl mini/rule/captions.jsonl \
  --column caption --vocab-size 4096 --out mini/text4096.model ${not_read[@]+"${not_read[@]}"}
step prepare text --input "$text" --tokenizer mini/text4096.model --out mini/text ${not_read[@]+"${not_read[@]}"}
[ -z "$data_only" ] || exit 0

if [ -n "$smollm2" ]; then
  step train --config mini_smollm2_stage1.py --init-from "$smollm2" --data.tokenizer "$smollm2"
  step train --config mini_smollm2_stage2.py --data.tokenizer "$smollm2"
  step export --checkpoint runs/mini_smollm2_stage2 --out mini/smollm2_model --dtype bfloat16
  step evaluate --model mini/smollm2_model --data mini/real --pieces 89 --temperature 0.9 --out mini/smollm2_report
else
  step train --config mini_stage1.py
  step train --config mini_stage2.py
  # No file of more than 15 MiB.
  step export --checkpoint runs/mini_stage2 --out mini/model --dtype bfloat16 --shard-gb 0.0157
  step evaluate --model mini/model --data mini/real --pieces 89 --seconds 30 --max-notes 150 --out mini/report
fi
