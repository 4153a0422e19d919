#!/usr/bin/env bash
# Loads the demo with eight connections for ten minutes, or for so many seconds: bench/soak.sh 60
# Fails where a request does, or where memory grows after a warm-up of a tenth of the time. At least 20. Needs curl, and wrk of the package wrk.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

seconds=${1:-600}
most_growth_kib=4096
if ! command -v wrk >/dev/null; then
  echo "Please install wrk, of the package wrk." >&2
  exit 1
fi

cargo build --release --example login
login=${CARGO_TARGET_DIR:-target}/release/examples/login
directory=$(mktemp -d)
# The 19 MiB of a password's hash go back to the system at once, and are in the measured memory only while they are used.
MALLOC_MMAP_THRESHOLD_=1048576 "$login" --listen 127.0.0.1:0 --database "$directory/demo.sqlite3" >"$directory/log" 2>&1 &
demo=$!
trap 'kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; rm -r "$directory"' EXIT

for _ in {1..100}; do
  address=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$directory/log" | head -n 1) && break
  sleep 0.1
done
[[ $address ]] || { cat "$directory/log" >&2; exit 1; }

resident_kib() {
  awk '/^VmRSS:/ { print $2 }' "/proc/$demo/status"
}

wrk --threads 8 --connections 8 --duration "${seconds}s" --timeout 10s --script bench/soak.lua "$address" >"$directory/wrk" &
wrk=$!
# Passwords are hashed at most moments, so that the least of a while is what counts.
samples=()
while kill -0 "$wrk" 2>/dev/null; do
  samples+=("$(resident_kib)")
  # wrk counts a request that is never answered as none.
  curl --silent --fail --max-time 10 --output /dev/null "$address/" || { echo "the demo does not answer" >&2; exit 1; }
  sleep 1
done
wait "$wrk"

tenth=$((${#samples[@]} / 10))
least() {
  printf '%s\n' "$@" | sort -n | head -n 1
}
warm=$(least "${samples[@]:tenth:tenth}")
end=$(least "${samples[@]: -tenth}")

cat "$directory/wrk"
if grep -E 'panicked|ERROR' "$directory/log"; then
  echo "the demo has logged errors" >&2
  exit 1
fi
echo "memory: $warm KiB after a tenth of the time, $end KiB at the end"
grep -q '^errors: 0 ' "$directory/wrk" || { echo "requests failed" >&2; exit 1; }
((end - warm <= most_growth_kib)) || { echo "memory grew by $((end - warm)) KiB" >&2; exit 1; }
