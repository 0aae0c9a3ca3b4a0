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
# with it. If one dies, all are started again from the last checkpoint (launch/supervise.py). The exit code is that of
# the first process that failed.
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
simulated=()
if [ -n "$devices" ]; then
  simulated=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
fi
if [ -n "$dry" ]; then
  shared=(JAX_COORDINATOR_ADDRESS=127.0.0.1:PORT "JAX_NUM_PROCESSES=$count" "${simulated[@]}")
  for ((i = 0; i < count; i++)); do
    printf '%q ' env "${shared[@]}" "JAX_PROCESS_ID=$i" "$python" -m midillm_jax.train "${arguments[@]}"
    if [ "$i" -gt 0 ]; then printf '> %q 2>&1 ' "$logs/$i.log"; fi
    printf '&\n'
  done
  echo 'wait  # should one die, launch/supervise.py ends the others and starts all again'
  exit 0
fi

if [ -n "$devices" ]; then export "${simulated[@]}"; fi
exec "$python" "$(dirname "$0")/supervise.py" --processes "$count" --logs "$logs" -- "$python" -m midillm_jax.train "${arguments[@]}"
