#!/usr/bin/env bash
# Trains with several processes on this machine, as they would run on several hosts.
#
#   launch/local.sh N [--devices D] [--logs DIR] [--dry-run] [--] --config FILE [arguments of midillm_jax.train]
#
#   N             processes
#   --devices D   simulated CPU devices of each process; sets JAX_PLATFORMS=cpu
#   --logs DIR    where the output of processes 1 to N-1 goes, DIR/1.log and so on (logs)
#   --dry-run     prints every command and does nothing
#
# Process 0 writes to the terminal. Ctrl-C and SIGTERM reach all of them: the run is saved, and the same command goes on
# with it. The exit code is that of the first process that failed.
# PYTHON names the Python to use (python).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
fail() { echo "error: $*" >&2; exit 2; }
count='' devices='' logs=logs dry='' arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --devices | --logs)
      [ $# -ge 2 ] || fail "$1 wants a value; $0 --help shows how"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    --) shift; arguments+=("$@"); break ;;
    *) if [ -z "$count" ]; then count=$1; shift; else arguments+=("$@"); break; fi ;;
  esac
done
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "found '$count' for the number of processes, expected 1 or more; $0 --help shows how"
[[ $devices =~ ^([1-9][0-9]*)?$ ]] || fail "found --devices $devices, expected a number of 1 or more"
[ ${#arguments[@]} -gt 0 ] || fail "no arguments for midillm_jax.train; expected --config FILE at least"

python=${PYTHON:-python}
if [ -n "$dry" ]; then
  port=PORT
else
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi
shared=("JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$count")
if [ -n "$devices" ]; then
  shared+=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
fi
if [ -n "$dry" ]; then
  for ((i = 0; i < count; i++)); do
    printf '%q ' env "${shared[@]}" "JAX_PROCESS_ID=$i" "$python" -m midillm_jax.train "${arguments[@]}"
    if [ "$i" -gt 0 ]; then printf '> %q 2>&1 ' "$logs/$i.log"; fi
    printf '&\n'
  done
  echo wait
  exit 0
fi

mkdir -p "$logs"
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT

# Whoever fails first makes the folder; for the others it is there already.
train() {
  trap : INT TERM
  local code=0
  env "${shared[@]}" "JAX_PROCESS_ID=$1" "$python" -m midillm_jax.train "${arguments[@]}" </dev/null || code=$?
  if [ "$code" != 0 ] && mkdir "$state/failed" 2>/dev/null; then echo "$code" > "$state/failed/code"; fi
}

# Job control gives each process a group of its own, to which signals are handed on.
set -m
groups=()
pass_on() { for group in "${groups[@]}"; do kill -s "$1" -- "-$group" 2>/dev/null || true; done; }
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM
for ((i = 0; i < count; i++)); do
  if [ "$i" = 0 ]; then train 0 & else train "$i" > "$logs/$i.log" 2>&1 & fi
  groups+=($!)
done
for group in "${groups[@]}"; do
  # A signal ends the waiting, not the process.
  while kill -0 "$group" 2>/dev/null; do wait "$group" || true; done
done
if [ -e "$state/failed" ]; then
  code=$(cat "$state/failed/code")
  [ "$count" = 1 ] || echo "exit code $code; the other processes wrote to $logs/" >&2
  exit "$code"
fi
