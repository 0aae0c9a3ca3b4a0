#!/usr/bin/env bash
# The figures that want a GPU, one after the other: attention, the train step and decoding at the shape of Llama-3.2-1B.
#
#   benchmarks/gpu.sh OUT [attention] [train_step] [step_kernels] [decode] [decode_graphs]     # all if none is named
#
# Needs midillm_jax[train,gpu], and torch with CUDA and transformers for what stands beside ours; 80 GB of device memory
# for the train step. OUT gets a log and a JSON file of each. One that fails, or takes longer than LIMIT seconds (240),
# is said and does not stop the next; the exit code is how many did.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
out=$1
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
wanted=("$@")
[ $# -gt 0 ] || wanted=(attention train_step step_kernels decode decode_graphs)
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/gpu.txt"
date -u +%F | tee -a "$out/gpu.txt"
failed=0
run() {
  local name=$1
  shift
  [[ " ${wanted[*]} " == *" $name "* ]] || return 0
  printf '\n[%s s] python benchmarks/%s\n' "$SECONDS" "$*"
  timeout "${LIMIT:-240}" python3 "benchmarks/$1" "${@:2}" 2>"$out/$name.err" | tee "$out/$name.txt"
  local code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || { echo "$name: exit code $code"; tail -5 "$out/$name.err"; failed=$((failed + 1)); }
}
run attention attention.py --repeat 10 --json "$out/attention.json"
run train_step train_step.py --shapes 1b --dtype bfloat16 --separate --torch-compile --steps 20 --ceiling-size 8192 \
  --json "$out/train_step.json"
run step_kernels step_kernels.py --shape 1b --dtype bfloat16
run decode decode.py --shapes 1b --batches 1 8 --engines jax transformers --triples 8 40 --repeats 2 --out "$out/decode.json"
# The whole loop over tokens as one CUDA graph, for at batch 1 a step is shorter than it takes to launch its kernels.
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE \
--xla_gpu_graph_min_graph_size=1" run decode_graphs decode.py --shapes 1b --batches 1 8 --engines jax --triples 8 40 \
  --repeats 2 --out "$out/decode_graphs.json"
exit "$failed"
