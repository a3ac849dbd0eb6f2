#!/usr/bin/env bash
# Runs the compose file for real: four workers do a batch of 200 links of the simulator, one of them is killed on the way,
# and the results have to agree. Then the dashboard looks at them, behind its token. Takes everything down again.
#   --can-run: ends with 0 if this machine can run it   --why-not: says why it cannot
set -euo pipefail
cd "$(dirname "$0")/.."

compose=()
if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null 2>&1; then compose=(docker-compose)
fi
why_not() {
  if ! docker info >/dev/null 2>&1; then echo "no Docker engine answers"; return; fi
  if [ ${#compose[@]} -eq 0 ]; then echo "there is no docker compose"; return; fi
  for image in rust:1.95-slim-bookworm debian:bookworm-slim redis:7-bookworm; do
    docker image inspect "$image" >/dev/null 2>&1 || timeout 300 docker pull -q "$image" >/dev/null 2>&1 ||
      { echo "the engine neither has nor can pull $image"; return; }
  done
}
case "${1:-}" in
  --why-not) why_not; exit 0 ;;
  --can-run) [ -z "$(why_not)" ]; exit ;;
esac

export COMPOSE_PROJECT_NAME="imgqtest$$" IMGQ_CONCURRENCY=8 IMGQ_DEMO_LATENCY=800ms
# A subnet of its own, beside that of a compose project which may be running.
export IMGQ_SUBNET="10.213.$((80 + $$ % 100))"
export IMGQ_DASHBOARD_PORT=$((20000 + $$ % 10000)) IMGQ_DASHBOARD_TOKEN="only-for-this-test-$RANDOM$RANDOM"
dc() { "${compose[@]}" "$@"; }
down() { dc --profile demo --profile observability down --volumes --timeout 45 >/dev/null 2>&1 || true; }
trap down EXIT
fail() { echo "FAILED: $*" >&2; dc --profile demo logs --tail 20 >&2 || true; exit 1; }
redis() { dc exec -T redis redis-cli "$@"; }
key() { printf 'imgq:{default}:%s' "$1"; }
# The field behind a name, of each entry of the results stream.
fields() { redis XRANGE "$(key results)" - + | tr -d '\r' | awk -v name="$1" 'found {print; found = 0} $0 == name {found = 1}'; }
per_worker() { fields worker | sort | uniq -c; }

dc build --quiet 2>/dev/null || dc build
dc --profile demo up -d --scale worker=4
echo "-- after up"; dc ps
for _ in $(seq 100); do [ "$(redis ZCARD "$(key workers)" | tr -d '\r')" = 4 ] && break; sleep 0.2; done
[ "$(redis ZCARD "$(key workers)" | tr -d '\r')" = 4 ] || fail "four workers did not register"

summary=$(dc run --rm -T demo enqueue imgur:random --pages 20 --limit 200 --json | tail -1)
echo "-- enqueued: $summary"
batch=$(sed -n 's/.*"batch":"\([0-9a-f]*\)".*/\1/p' <<<"$summary")
jobs=$(sed -n 's/.*"enqueued":\([0-9]*\).*/\1/p' <<<"$summary")
[ "$jobs" -ge 190 ] || fail "only $jobs links were enqueued"

for _ in $(seq 100); do [ "$(redis XLEN "$(key results)" | tr -d '\r')" -ge 24 ] && break; sleep 0.1; done
victim=$(dc ps -q worker | sed -n 1p)
echo "-- before the kill: LLEN ready $(redis LLEN "$(key ready)"), XLEN results $(redis XLEN "$(key results)"), results per worker:"; per_worker
docker kill --signal KILL "$victim" >/dev/null
killed=$(date +%s)
echo "-- killed one worker"; dc ps

# 3: the simulator has removed an image now and then, and such a link is rejected.
code=0; dc run --rm -T demo wait "$batch" --timeout 2m || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || fail "wait ended with code $code"
echo "-- $(($(date +%s) - killed)) s after the kill: LLEN ready $(redis LLEN "$(key ready)"), XLEN results $(redis XLEN "$(key results)"), results per worker:"; per_worker

[ "$(redis XLEN "$(key results)" | tr -d '\r')" = "$jobs" ] || fail "there are not $jobs results"
[ "$(fields id | sort -u | wc -l)" = "$jobs" ] || fail "some job has two results"
stored=$(fields outcome | grep -c '^stored$')
[ $((stored + $(fields reason | grep -c '^removed$'))) = "$jobs" ] || fail "some are neither stored nor removed at Imgur"
[ "$(per_worker | wc -l)" -ge 4 ] || fail "not all four workers did some"
[ "$(redis LLEN "$(key ready)" | tr -d '\r')" = 0 ] || fail "jobs are left"

# What lies in the volume is what the results say: key and SHA-256 of each.
paste -d' ' <(fields sha256) <(fields key) | sort >"/tmp/$COMPOSE_PROJECT_NAME.results"
worker=$(dc ps -q worker | sed -n 2p)
docker exec "$worker" sh -c 'cd /images && find . -type f -not -path "./.imgq-tmp/*" -exec sha256sum {} +' |
  sed 's|  \./| |' | sort >"/tmp/$COMPOSE_PROJECT_NAME.files"
cmp "/tmp/$COMPOSE_PROJECT_NAME.results" "/tmp/$COMPOSE_PROJECT_NAME.files" || fail "files and results do not agree"
rm -f "/tmp/$COMPOSE_PROJECT_NAME".*
docker exec "$worker" sh -c 'id -u; touch /x 2>/dev/null && echo writable || echo read-only' | tr '\n' ' ' | grep -q '10001 read-only' ||
  fail "the worker runs as root or on a writable root"
echo "-- $jobs jobs, $jobs results, $stored files, which agree with them"

# What the dashboard answers to a path and further header lines.
ask_dashboard() {
  exec 3<>"/dev/tcp/127.0.0.1/$IMGQ_DASHBOARD_PORT" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n' "$1" "${2:-}" >&3
  cat <&3
  exec 3>&-
}
dc --profile observability up -d dashboard
for _ in $(seq 100); do [[ $(ask_dashboard /readyz 2>/dev/null) == *" 200 OK"* ]] && break; sleep 0.2; done
[[ $(ask_dashboard /metrics) == "HTTP/1.1 401"* ]] || fail "the dashboard tells its numbers without a token"
metrics=$(ask_dashboard /metrics "Authorization: Bearer $IMGQ_DASHBOARD_TOKEN\r\n")
grep -q "^imgq_queue_results_kept{queue=\"default\"} $jobs" <<<"$metrics" || fail "the dashboard does not count $jobs results: $metrics"
echo "-- the dashboard counts $jobs results, and only for those who have its token"
down
trap - EXIT
[ -z "$(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")" ] || fail "containers are left"
echo "-- down again"
