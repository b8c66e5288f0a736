#!/usr/bin/env bash
# On a machine with a GPU, CuPy, PyTorch and JAX, and no network: the GPU tests, then the workloads and peers there,
# in under nine minutes. The last lines are a short table; the result files go to the folder given.
#     bash benchmarks/device.sh [folder]
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
python="${PYTHON:-python3}"
out="${1:-build/benchmarks}"
begun=$SECONDS

timeout --foreground --kill-after=15 150 "$python" -m pytest -q -p no:cacheprovider -m gpu tests
tests=$?
case $tests in
    0) told="passed" ;;
    5) told="none is there yet" ;;
    *) told="FAILED (exit status $tests)" ;;
esac

left=$((510 - (SECONDS - begun)))
timeout --foreground --kill-after=15 --signal=INT "$left" "$python" -m benchmarks run --device cuda --part workloads \
    --sittings 1 --minutes "$(((left - 90) / 60))" --out "$out"
measured=$?
echo "GPU tests: $told; benchmarks: exit status $measured; $((SECONDS - begun)) s"
[ "$measured" -eq 0 ] && { [ "$tests" -eq 0 ] || [ "$tests" -eq 5 ]; }
