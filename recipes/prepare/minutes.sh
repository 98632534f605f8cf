#!/usr/bin/env bash
# Goes on with cappy-base for some minutes on a machine with an accelerator that nothing but files can be brought to, and
# leaves what it learnt in parts. The parts that parts.py made lie in PARTS, the encoder's other files in LIKE.
#
#   recipes/prepare/minutes.sh PARTS LIKE OUT MINUTES [options of cappy train]
#
# OUT/log.jsonl has loss, tokens a second and MFU of each update; OUT/weights.npz.NNN are the weights, as parts.py joins
# them.
set -euo pipefail
parts=$1 like=$2 out=$3 minutes=$4
shift 4
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root:$root/adapters${PYTHONPATH:+:$PYTHONPATH}"
# XLA's own choice of kernels takes minutes; see docs/train.md.
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false}"
here=${SCRATCH:-$(mktemp -d)}
mkdir -p "$out"

python3 "$root/recipes/prepare/parts.py" join "$parts" --out "$here/joined"
python3 "$root/recipes/prepare/parts.py" grow "$here/joined/weights.npz" --like "$like" --out "$here/encoder"
mkdir -p "$here/pairs"
mv "$here"/joined/*.parquet "$here"/joined/manifest.json "$here/pairs/"

python3 -m cappy_select train "$root/recipes/base.py" --set pairs="$here/pairs" --set checkpoint="$here/encoder" \
  --set max_minutes="$minutes" --out "$here/run" "$@"
cp "$here/run/log.jsonl" "$here/run/run.json" "$out/"
python3 "$root/recipes/prepare/parts.py" shrink "$here/run/model" --out "$here/weights.npz"
python3 "$root/recipes/prepare/parts.py" split "$here/weights.npz" --out "$out" --mib 15
