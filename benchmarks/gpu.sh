#!/usr/bin/env bash
# What a GPU has to show, in eight minutes: compiles, tests and times what needs one, and writes one Markdown file.
#
#   benchmarks/gpu.sh               # writes docs/gpu.md, or gpu.md into the folder $OUT
#   DEVICE=cpu benchmarks/gpu.sh    # the same parts in small, to try the script
#
# Nothing is fetched. Needed are nvcc with a C++ compiler, and a Python ($PYTHON, else python3) with torch, torchvision,
# triton, timm, transformers, scipy, opencv-python-headless, rich, pytest and hypothesis. Other packages are taken from
# wheels in the folder wheels/ ($WHEELS), filled where there is a network, by the same version of Python:
#
#   python3.12 -m pip wheel --no-deps -w wheels -r benchmarks/gpu.txt
#
# Each part is a row of the file, which is written after each of them. A part that fails or takes longer than its
# seconds ends there, and the next one begins. Exit code 1: a part has failed, or, on a GPU, could not run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

export device=${DEVICE:-cuda} python=${PYTHON:-python3} wheels=${WHEELS:-wheels}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work PYTHONPATH="$PWD:$work/site" PYTHONUNBUFFERED=1
out=${OUT:-docs}/gpu.md
patience=$([ "$device" = cuda ] && echo 1 || echo 4)
limit=$((480 * patience))
failures=0

part() { # TITLE SECONDS FUNCTION: run it, and write its row and its section
  local title=$1 seconds=$(($2 * patience)) start=$SECONDS left=$((limit - SECONDS)) code=124 result
  ((seconds < left)) || seconds=$left
  rm -f "$work/table.md"
  echo 'There was no time left.' >"$work/log"
  if ((seconds > 0)); then
    timeout -k 5 "$seconds" bash -euo pipefail -c "trap : TERM; $3" >"$work/log" 2>&1
    code=$?
  fi
  case $code in
    0) result='done' ;;
    77) result='not run' ;;
    124 | 137) result="stopped after $seconds s" ;;
    *) result="failed, exit code $code" ;;
  esac
  [ "$code" = 0 ] || [ "$code" = 77 ] || failures=$((failures + 1))
  echo "| $title | $result | $((SECONDS - start)) | $seconds |" >>"$work/rows"
  section "$title" "$result" | sed "s#$work/##g; s#$PWD/##g" >>"$work/sections"
  {
    echo "# On a $([ "$device" = cuda ] && echo GPU || echo 'CPU, to try the script')"
    printf '\n%s, commit %s\n\n' "$(date -u +%F)" "$(git describe --always --dirty 2>/dev/null || echo unknown)"
    printf '| part | result | seconds | at most |\n| --- | --- | ---: | ---: |\n'
    cat "$work/rows" "$work/sections"
  } >"$out"
  printf '%4d s: %s: %s\n' "$SECONDS" "$title" "$result"
}
section() { # TITLE RESULT: the table of a benchmark, and where that is not all, commands and the end of the output
  printf '\n## %s\n\n' "$1"
  if [ -f "$work/table.md" ]; then
    cat "$work/table.md"
    [ "$2" != 'done' ] || return
    echo
  fi
  sed -n "s/^\\$ \(.*\)/\`\1\`\n/p" "$work/log"
  printf '%s. The end of the output:\n\n```text\n' "${2^}"
  sed 's/\x1b\[[0-9;]*[A-Za-z]//g' "$work/log" | grep -av '^\$ \|─\|━\|│' | cut -c1-240 | tail -n 25
  printf '```\n'
}
run() { # COMMAND...: say it, and run it
  local word words=()
  for word; do [[ $word = *' '* ]] && words+=("'$word'") || words+=("$word"); done
  echo "\$ ${words[*]}"
  "$@"
}
impossible() { # REASON: on a GPU a failure
  echo "$1"
  [ "$device" = cuda ] && exit 1
  exit 77
}
export -f run impossible

environment() {
  if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl
  fi
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  nvcc --version | tail -n 2 || true
  "$python" - <<-'END'
	import os, platform
	from importlib import metadata
	import torch
	names = 'torchvision triton numpy timm transformers onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmsegmentation'
	for name in [*names.split(), 'msda-triton', 'deformops', 'pytest', 'hypothesis']:
	    try:
	        print(name, metadata.version(name))
	    except metadata.PackageNotFoundError:
	        print(name, 'is not installed')
	print('Python', platform.python_version(), 'on', platform.platform(), 'with', os.cpu_count(), 'cores')
	print('PyTorch', torch.__version__, 'for CUDA', torch.version.cuda, *torch.cuda.get_arch_list())
	if os.environ['device'] == 'cuda':
	    print(torch.cuda.get_device_properties(0))
	import vitdense
	print('vitdense', vitdense.__version__)
	END
}

compile() {
  run "$python" setup.py -q build_ext --inplace
  "$python" - <<-'END' || impossible 'There is no CUDA library to load.'
	import sys
	from vitdense.ops.ms_deform_attn import build, library
	print(build.file_name('cuda'))
	sys.exit(library.load('cuda'))
	END
}

compile_deformops() {
  [ "$device" = cuda ] || impossible 'It compiles where there is a GPU.'
  DEFORMOPS_COMPILE=1 run timeout 70 "$python" -c 'from deformops.registry import *; msda.load(Backend.CUDA)' || exit 77
}

parity() {
  local others='kernels_keep or kernels_move or additions_are or library_' # they look at machine code
  [ "$device" = cpu ] || others="$others or 800 or 900 or interpreted"     # the GPU does what these emulate
  run "$python" -m pytest -q -W ignore -p no:cacheprovider -k "not ($others)" \
    tests/ops/ms_deform_attn/test_{backends,cpu,cuda,operator,triton}.py
}

operator() {
  local small=()
  [ "$device" = cuda ] || small=(--shapes decoder-300 --dtypes fp32 bf16 --repeat 1)
  run "$python" benchmarks/ms_deform_attn.py --device "$device" --out "$work/table.md" "${small[@]}"
}

training() {
  local small=()
  [ "$device" = cuda ] || small=(--hw 64 96 --images 1 --dtypes fp32 bf16 --repeat 1)
  run "$python" -W ignore benchmarks/amp.py --device "$device" --out "$work/table.md" "${small[@]}"
}

precision() {
  local all=(-m 'sweep or not sweep')
  [ "$device" = cuda ] || all=()
  run "$python" -m pytest -q -W ignore -p no:cacheprovider "${all[@]}" -k twenty_steps tests/engine/test_amp.py
}

sanitizer() { # TOOL
  local tool
  tool=$(PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/compute-sanitizer" command -v compute-sanitizer) ||
    impossible 'compute-sanitizer is neither on the PATH nor in the CUDA toolkit.'
  [ "$device" = cuda ] || impossible "$tool needs a GPU."
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 run "$tool" --tool "$1" --error-exitcode 2 --report-api-errors no \
    "$python" -m pytest -q -x -W ignore -p no:cacheprovider tests/ops/ms_deform_attn/test_{cuda,triton}.py \
    -k 'misaligned_views or gpu and (rounds or reaches or out_of_reach or beyond or no_queries or are_the_reference)'
}
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer racecheck; }
export -f environment compile compile_deformops parity operator training precision sanitizer memcheck racecheck

part 'Environment' 30 environment
part 'Compilation' 90 compile
part 'Compilation of deformops' 75 compile_deformops
part 'Parity of the back ends' 75 parity
part 'Multi-scale deformable attention' 120 operator
part 'Training steps' 120 training
part 'Mixed precision against float32' 90 precision
part 'compute-sanitizer, memcheck' 60 memcheck
part 'compute-sanitizer, racecheck' 60 racecheck
echo "$out"
((failures == 0))
