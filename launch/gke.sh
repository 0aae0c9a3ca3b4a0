#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet (launch/gke.yaml).
#
#   launch/gke.sh apply   --name N --image I --accelerator A --topology T --bucket B [options] -- --config FILE [arguments]
#   launch/gke.sh logs    --name N      follows the first host's output
#   launch/gke.sh delete  --name N      stops the run, which saves first; called with the same name again it goes on
#
#   --name          of the JobSet                                                       GKE_NAME
#   --image         made from launch/Dockerfile, where the cluster can pull it          GKE_IMAGE
#   --accelerator   such as tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice          GKE_ACCELERATOR
#   --topology      of a slice, such as 4x8                                             GKE_TOPOLOGY
#   --chips         of one host (4)                                                     GKE_CHIPS
#   --slices        number of slices, each a node pool (1)                              GKE_SLICES
#   --bucket        gs://... for runs and data, mounted at /bucket, where Pods run      GKE_BUCKET
#   --account       Kubernetes service account that may use the bucket (default)        GKE_ACCOUNT
#   --restarts      times that all Pods are started again before giving up (20)         GKE_RESTARTS
#   --dry-run       prints the yaml or the command and does nothing
#
# The cluster needs the JobSet controller and the Cloud Storage FUSE CSI driver. Not run against Google Cloud where it was
# written: only --dry-run, the form of the yaml and the answers to mistakes are tested.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
fail() { echo "error: $*" >&2; exit 2; }
# shellcheck disable=SC2034  # all are read by their names
name=${GKE_NAME:-} image=${GKE_IMAGE:-} accelerator=${GKE_ACCELERATOR:-} topology=${GKE_TOPOLOGY:-} chips=${GKE_CHIPS:-4}
# shellcheck disable=SC2034
slices=${GKE_SLICES:-1} bucket=${GKE_BUCKET:-} account=${GKE_ACCOUNT:-default} restarts=${GKE_RESTARTS:-20}
dry='' action='' words=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --image | --accelerator | --topology | --chips | --slices | --bucket | --account | --restarts)
      [ $# -ge 2 ] || fail "$1 wants a value; $0 --help shows how"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    --) shift; words=("$@"); break ;;
    apply | logs | delete)
      [ -z "$action" ] || fail "found $action and $1, expected one of them"
      action=$1
      shift
      ;;
    *) fail "there is no option $1; $0 --help lists them" ;;
  esac
done
[ -n "$action" ] || fail "what to do is missing; expected apply, logs or delete"
need() { [ -n "${!1}" ] || fail "$action needs --$1 (or GKE_$(tr '[:lower:]' '[:upper:]' <<< "$1")); $0 --help shows how"; }
need name
# What becomes part of the yaml has to be a name, an image, a number: nothing that could end a string.
for field in name image accelerator account; do
  [[ ${!field} =~ ^[A-Za-z0-9._/:@-]*$ ]] || fail "found --$field ${!field}, expected letters, digits and . _ / : @ -"
done
[ -n "$dry" ] || command -v kubectl >/dev/null || fail "kubectl is not installed; see https://kubernetes.io/docs/tasks/tools, or add --dry-run"

kubectl_step() {
  printf '%q ' kubectl "$@"
  printf '\n'
  [ -n "$dry" ] || kubectl "$@"
}
case $action in
  logs)
    kubectl_step logs --follow --selector "jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0" --container train --tail=-1
    exit
    ;;
  delete)
    kubectl_step delete jobset "$name"
    exit
    ;;
esac

need image
need accelerator
need topology
need bucket
[ ${#words[@]} -gt 0 ] || fail "apply needs the arguments of midillm_jax.train after --, --config FILE at least"
[[ $bucket =~ ^gs://[a-z0-9._-]+$ ]] || fail "found --bucket $bucket, expected gs://NAME without a folder"
for field in chips slices restarts; do
  [[ ${!field} =~ ^[1-9][0-9]*$ ]] || fail "found --$field ${!field}, expected a number of 1 or more"
done
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || fail "found --topology $topology, expected such as 4x8 or 2x2x4"
all=$((${topology//x/*}))
[ $((all % chips)) = 0 ] || fail "a slice of $topology has $all chips, which hosts of --chips $chips do not make up"
# shellcheck disable=SC2034
hosts=$((all / chips))

# A JSON list is also a list in yaml.
arguments=
for word in "${words[@]}"; do
  [[ $word != *[$'\001'-$'\037']* ]] || fail "an argument of midillm_jax.train holds a control character; expected plain text"
  word=${word//\\/\\\\}
  arguments+="${arguments:+, }\"${word//\"/\\\"}\""
done
arguments="[$arguments]"
bucket=${bucket#gs://}

yaml=$(cat "$(dirname "$0")/gke.yaml")
# An argument may hold @name@ itself, so that arguments come last.
for field in name image accelerator topology chips slices bucket account restarts hosts arguments; do
  before=${yaml%%"@$field@"*}
  [ "$before" != "$yaml" ] || fail "$(dirname "$0")/gke.yaml has no @$field@"
  while [ "$before" != "$yaml" ]; do
    yaml=$before${!field}${yaml#*"@$field@"}
    [ "$field" != arguments ] || break
    before=${yaml%%"@$field@"*}
  done
done
if [ -n "$dry" ]; then
  printf '%s\n' "$yaml"
else
  kubectl apply -f - <<< "$yaml"
  echo "follow it: $0 logs --name $name"
fi
