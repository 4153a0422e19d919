#!/usr/bin/env bash
# Loads the demo with eight connections for ten minutes, or for so many seconds: bench/soak.sh 60
# Fails where a request does, or where memory grows after a warm-up of a tenth of the time. Needs wrk, of the package wrk.
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
"$login" --listen 127.0.0.1:0 --database "$directory/demo.sqlite3" >"$directory/log" 2>&1 &
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
sleep $((seconds / 10))
warm=$(resident_kib)
highest=$warm
while kill -0 "$wrk" 2>/dev/null; do
  now=$(resident_kib)
  ((now <= highest)) || highest=$now
  sleep 1
done
wait "$wrk"
end=$(resident_kib)

cat "$directory/wrk"
echo "memory: $warm KiB after warm-up, $highest at most, $end at the end"
grep -q '^errors: 0 ' "$directory/wrk" || { echo "requests failed" >&2; exit 1; }
((highest - warm <= most_growth_kib)) || { echo "memory grew by $((highest - warm)) KiB" >&2; exit 1; }
