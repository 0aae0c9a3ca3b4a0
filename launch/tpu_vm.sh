#!/usr/bin/env bash
# Trains on Cloud TPU VMs: one slice, or several joined over the data-centre network.
#
#   launch/tpu_vm.sh up      --name N --zone Z --type T --bucket B [options] -- --config FILE [arguments of midillm_jax.train]
#   launch/tpu_vm.sh create|install|train|logs|stop|delete  the same options
#
#   up            all of it: create and wait, install, train, logs. Called again after a preemption or an interruption
#                 it goes on where the run was saved.
#   create        asks for a queued resource and waits until it is there; one that was taken away is made anew
#   install       copies this clone (its last commit) to every worker, installs it and mounts the bucket
#   train         starts training on every worker, in the background; a run that is under way is left alone. A process that
#                 dies is started again (supervise.py); those of the other workers end within a minute, and are too
#   logs          follows worker 0's output until the run ends, and ends with its exit code
#   stop          asks the run to save and end
#   delete        gives the TPUs back; the bucket stays
#
#   --name        of the queued resource and its nodes                      TPU_NAME
#   --zone        such as us-west4-a                                        TPU_ZONE
#   --type        accelerator type, such as v5litepod-16 or v6e-64          TPU_TYPE
#   --bucket      gs://... for runs and data, mounted as ~/bucket           TPU_BUCKET
#   --project     (gcloud's own setting)                                    TPU_PROJECT
#   --slices      number of slices (1)                                      TPU_SLICES
#   --version     runtime version (the usual one of the type)               TPU_VERSION
#   --reserved, --spot                                                      TPU_TIER=reserved, spot
#   --poll        seconds between two looks while waiting (60)              TPU_POLL
#   --dry-run     prints every command and does nothing
#
# Workers run in ~/bucket: relative paths of a config (data/..., runs/...) lie in the bucket, which all of them share.
# Not run against Google Cloud where it was written: its commands follow the help of gcloud
# compute tpus queued-resources; only --dry-run and its answers to mistakes are tested.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
fail() { echo "error: $*" >&2; exit 2; }
name=${TPU_NAME:-} zone=${TPU_ZONE:-} type=${TPU_TYPE:-} bucket=${TPU_BUCKET:-} project=${TPU_PROJECT:-}
slices=${TPU_SLICES:-1} version=${TPU_VERSION:-} tier=${TPU_TIER:-} poll=${TPU_POLL:-60} dry='' action='' arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --zone | --type | --bucket | --project | --slices | --version | --poll)
      [ $# -ge 2 ] || fail "$1 wants a value; $0 --help shows how"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --spot | --reserved) tier=${1#--}; shift ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    --) shift; arguments=("$@"); break ;;
    up | create | install | train | logs | stop | delete)
      [ -z "$action" ] || fail "found $action and $1, expected one of them"
      action=$1
      shift
      ;;
    *) fail "there is no option $1; $0 --help lists them" ;;
  esac
done
[ -n "$action" ] || fail "what to do is missing; expected up, create, install, train, logs, stop or delete"
need() { [ -n "${!1}" ] || fail "$action needs --$1 (or TPU_$(tr '[:lower:]' '[:upper:]' <<< "$1")); $0 --help shows how"; }
need name
need zone
case $action in up | create) need type ;; esac
case $action in up | install) need bucket ;; esac
case $action in
  up | train) [ ${#arguments[@]} -gt 0 ] || fail "$action needs the arguments of midillm_jax.train after --, --config FILE at least" ;;
esac
[[ -z $bucket || $bucket =~ ^gs://[^/]+$ ]] || fail "found --bucket $bucket, expected gs://NAME without a folder"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "found --slices $slices, expected a number of 1 or more"
[[ $tier =~ ^(spot|reserved|)$ ]] || fail "found TPU_TIER $tier, expected spot or reserved"
if [ -z "$version" ]; then
  case $type in
    v4-*) version=tpu-ubuntu2204-base ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    '') ;;
    *) fail "no runtime version is known for --type $type; give --version" ;;
  esac
fi
[ -n "$dry" ] || command -v gcloud >/dev/null || fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install, or add --dry-run"

where=(--zone "$zone" ${project:+--project "$project"})
step() {
  printf '\n'
  printf '%q ' "$@"
  printf '\n'
  [ -n "$dry" ] || "$@"
}
tpus() { step gcloud compute tpus queued-resources "$@"; }
everywhere() { tpus ssh "$name" "${where[@]}" --node all --worker all --command "$1"; }
state() {
  gcloud compute tpus queued-resources list "${where[@]}" --filter "name~/$name\$" --format 'value(state.state)'
}

ask() {
  local nodes=(--node-id "$name")
  [ "$slices" = 1 ] || nodes=(--node-count "$slices" --node-prefix "$name")
  tpus create "$name" "${where[@]}" --accelerator-type "$type" --runtime-version "$version" "${nodes[@]}" ${tier:+"--$tier"}
}

create() {
  if [ -n "$dry" ]; then
    ask
    echo "# waits for the state ACTIVE; in SUSPENDED or FAILED it deletes the request and makes it anew"
    return
  fi
  while true; do
    local now
    now=$(state)
    case $now in
      ACTIVE) return ;;
      '') ask ;;
      SUSPENDED | FAILED) tpus delete "$name" "${where[@]}" --force --quiet ;;
      *) echo "$(date +%T) $name: $now"; sleep "$poll" ;;
    esac
  done
}

install() {
  local archive
  archive=${TMPDIR:-/tmp}/midillm_jax-$name.tar.gz
  step git -C "$(dirname "$0")/.." archive --format tar.gz --output "$archive" HEAD
  tpus scp "$archive" "$name:midillm_jax.tar.gz" "${where[@]}" --node all --worker all
  # The images' own Python is too old; uv brings one. Cloud Storage FUSE is installed as its documentation says.
  everywhere "set -e
if test -e ~/train.pid && kill -0 \$(cat ~/train.pid) 2>/dev/null; then echo training already; exit 0; fi
mkdir -p ~/midillm_jax ~/bucket
tar -xzf ~/midillm_jax.tar.gz -C ~/midillm_jax
test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh
test -d ~/venv || ~/.local/bin/uv venv --python 3.12 ~/venv
~/.local/bin/uv pip install --python ~/venv/bin/python --quiet --editable ~/midillm_jax[train,tpu,cloud]
if ! command -v gcsfuse >/dev/null; then
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
  echo \"deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -c -s) main\" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
  sudo apt-get update -q && sudo apt-get install -y -q gcsfuse
fi
mountpoint -q ~/bucket || gcsfuse --implicit-dirs ${bucket#gs://} ~/bucket"
}

train() {
  local words
  words=$(printf '%q ' "${arguments[@]}")
  # The process number tells whether a run is under way; a shell outlives the connection and writes down how it ended.
  everywhere "cd ~/bucket
if test -e ~/train.pid && kill -0 \$(cat ~/train.pid) 2>/dev/null; then echo training already; exit 0; fi
rm -f ~/train.code
nohup sh -c '~/venv/bin/python ~/midillm_jax/launch/supervise.py -- ~/venv/bin/python -m midillm_jax.train \"\$@\" & echo \$! > ~/train.pid; wait \$!; echo \$? > ~/train.code' train $words > ~/train.log 2>&1 < /dev/null &
sleep 1"
}

logs() {
  tpus ssh "$name" "${where[@]}" --node 0 --worker 0 --command \
    "tail -n +1 -F --pid \$(cat ~/train.pid) ~/train.log; sleep 2; exit \$(cat ~/train.code)"
}

stop() { everywhere "kill -TERM \$(cat ~/train.pid)"; }

delete() { tpus delete "$name" "${where[@]}" --force --quiet; }

case $action in
  up)
    create
    install
    train
    logs
    ;;
  *) "$action" ;;
esac
