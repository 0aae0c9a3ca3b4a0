#!/usr/bin/env bash
# From the published data sets to the shards of both training stages, and from there into a bucket.
#
#   launch/data.sh --tokenizer models/Llama-3.2-1B [--out data] [--raw raw] [--gigamidi DIR] [--bucket gs://mine/data]
#                  [--no-text] [--no-fetch] [--fetch-only] [--test-ids FILE] [--yes] [--dry-run]
#
#   OUT/lakh_midicaps   MidiCaps' captions with their pieces, for stage 2
#   OUT/midi            stand-alone MIDI for stage 1 (Lakh, or GigaMIDI where its parquet files are given), without the
#                       pieces of stage 2 and of its evaluation
#   OUT/musicpile       music text for stage 1
#
# --no-fetch takes what lies in RAW, --fetch-only stops behind the downloads, --yes does not ask before each. --dry-run
# prints every command and does nothing. Started again after an interruption it goes on where it stopped.
# Times and sizes are in docs/data.md.
set -euo pipefail

out=data raw=raw tokenizer='' gigamidi='' bucket='' test_ids='' text=yes fetch=yes only='' ask=() dry=''
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --out | --raw | --tokenizer | --gigamidi | --bucket | --test-ids)
      [ $# -ge 2 ] || { echo "error: $1 wants a value; $0 --help shows how" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    --no-text) text=; shift ;;
    --no-fetch) fetch=; shift ;;
    --fetch-only) only=yes; shift ;;
    --yes) ask=(--yes); shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    *) echo "error: there is no option $1; $0 --help lists them" >&2; exit 2 ;;
  esac
done
if [ -n "$only" ] && [ -z "$fetch" ]; then
  echo "error: found --no-fetch and --fetch-only, expected one of them" >&2
  exit 2
fi
if [ -n "$text" ] && [ -z "$tokenizer" ] && [ -z "$only" ]; then
  echo "error: text needs --tokenizer, the base model's folder; or --no-text leaves music text out" >&2
  exit 2
fi

step() {
  printf '\n'
  printf '%q ' "$@"
  printf '\n'
  [ -n "$dry" ] || "$@"
}
prepare() { step python -m midillm_jax.prepare "$@"; }

# The filters of the Anticipatory Music Transformer, under which the published checkpoint was trained.
filters=(--filters.min-notes 100 --filters.min-seconds 10 --filters.max-seconds 3600 --filters.max-programs 16)
ids=(${test_ids:+--test-ids "$test_ids"})
all=$out/all

if [ -n "$fetch" ]; then
  prepare fetch midicaps --out "$raw/midicaps" ${ask[@]+"${ask[@]}"}
  [ -n "$gigamidi" ] || prepare fetch lakh --out "$raw/lakh" ${ask[@]+"${ask[@]}"}
  [ -z "$text" ] || prepare fetch musicpile --out "$raw/musicpile" ${ask[@]+"${ask[@]}"}
fi
[ -z "$only" ] || exit 0
prepare pairs --input "$raw/midicaps/train.json" --midi "$raw/midicaps/midicaps.tar.gz" --out "$all/lakh_midicaps" \
  "${filters[@]}" ${ids[@]+"${ids[@]}"}
prepare midi --input "${gigamidi:-$raw/lakh/lmd_full.tar.gz}" --out "$all/midi" "${filters[@]}" ${ids[@]+"${ids[@]}"}
# The folder of the last stage comes first: what it holds, captioned or held out, is left out of the other.
prepare dedupe --input "$all/lakh_midicaps" "$all/midi" --out "$out"
[ -z "$text" ] || prepare text --input "$raw/musicpile" --tokenizer "$tokenizer" --out "$out/musicpile"
for folder in lakh_midicaps midi; do prepare inspect "$out/$folder" --out "$out/$folder.png"; done
if [ -n "$bucket" ]; then
  for folder in lakh_midicaps midi ${text:+musicpile}; do
    step gcloud storage rsync --recursive "$out/$folder" "$bucket/$folder"
  done
fi
