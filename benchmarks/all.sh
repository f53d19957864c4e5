#!/usr/bin/env bash
# Everything that docs/speed.md tells, in 40 minutes on two cores of a machine that does nothing else.
#
#   benchmarks/all.sh               # writes docs/speed.md
#   benchmarks/all.sh FILE          # writes FILE
#
# Each part is a benchmark with its command, machine and notes. One that fails ends the script, and what was measured
# before it is in the file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python} out=${1:-docs/speed.md}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD" PYTHONWARNINGS=ignore

part() { # TITLE BENCHMARK [OPTION...]: its output is a section of the file
  local title=$1
  shift
  "$python" "$@" --out "$work/part.md"
  { printf '\n## %s\n\n' "$title"; sed "s#$work/part.md#FILE.md#" "$work/part.md"; } >>"$out"
  printf '%4d s: %s\n' "$SECONDS" "$title"
}

cat >"$out" <<'END'
# Speed

*Measured here*, all of it by `benchmarks/all.sh` in one go; each table has its command, machine and versions.

- Implementations of a model have the same weights and a process each, and take turns. Times are minima over the rounds.
- **times best peer**: over the fastest, or the leanest, of the other packages in the same row of precision.
- **times floor**: over the time of the matrix products and convolutions of our model alone, run one after another in the
  same process and precision. No implementation of the model does with less unless its products are faster.
- Memory is what a call adds at its peak, gradients included.
- The table at the end of a section says what the time of ours goes to (`torch.profiler`).
END
part 'Backbones' benchmarks/backbones.py --sizes 512x672 --precisions fp32 bf16 --repeat 3 --kinds
part 'Detectors' benchmarks/train_step.py --parts step inference --precisions fp32 bf16 --repeat 2 --kinds
part 'Multi-scale deformable attention' benchmarks/ms_deform_attn.py --threads 1 --dtypes fp32 bf16 --repeat 3
