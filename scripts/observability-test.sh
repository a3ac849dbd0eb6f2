#!/usr/bin/env bash
# Checks what deploy/ has for Prometheus and Grafana: configuration and rules with promtool, each alert with made-up numbers
# (deploy/prometheus/alerts_test.yml), then a Prometheus that scrapes real workers and a real dashboard: every query of the Grafana
# dashboard has to find something, and alerts have to fire and to end (scripts/observability/live.py). About a minute.
#   --can-run: ends with 0 if this machine can run it   --why-not: says why it cannot   --left-out: what of it this machine cannot
#   run, with the reason
# IMGQ_PROGRAMS names a folder with producer and worker; without it they are built.
set -euo pipefail
cd "$(dirname "$0")/.."

why_not() {
  scripts/ensure-prometheus.sh
  command -v promtool >/dev/null 2>&1 || echo "there is no promtool (Debian: apt-get install prometheus)"
}
left_out() {
  if ! command -v prometheus >/dev/null 2>&1; then echo "the queries against a live Prometheus: there is no prometheus"
  elif ! command -v python3 >/dev/null 2>&1; then echo "the queries against a live Prometheus: there is no python3, which drives them"
  fi
}
case "${1:-}" in
  --why-not) why_not; exit 0 ;;
  --can-run) [ -z "$(why_not)" ]; exit ;;
  --left-out) left_out; exit 0 ;;
esac
why=$(why_not)
[ -z "$why" ] || { echo "error: this cannot run here: $why" >&2; exit 1; }

place=$(mktemp -d)
trap 'rm -r "$place"' EXIT
echo "-- alerts and configuration"
# The token's file is made by the compose file; here any will do.
touch "$place/token"
cp deploy/prometheus/alerts.yml "$place"
sed "s|/tmp/imgq-dashboard-token|$place/token|" deploy/prometheus/prometheus.yml >"$place/prometheus.yml"
promtool check config "$place/prometheus.yml"
(cd deploy/prometheus && promtool test rules alerts_test.yml)
# Each alert has a test that names it, says how bad it is, and what to type.
alerts=$(sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yml)
for alert in $alerts; do
  grep -q "$alert" deploy/prometheus/alerts_test.yml || { echo "FAILED: $alert has no test" >&2; exit 1; }
done
for part in 'labels: { severity: \(critical\|warning\) }' 'summary: ' 'description: ' 'action: '; do
  [ "$(grep -c "^ *$part" deploy/prometheus/alerts.yml)" -eq "$(wc -w <<<"$alerts")" ] ||
    { echo "FAILED: not every alert has '${part%%:*}'" >&2; exit 1; }
done

# Needs no engine. With and without the token: without it the profile must not stop the others from starting.
for compose in "docker compose" docker-compose; do
  $compose version >/dev/null 2>&1 || continue
  for profile in "" "--profile observability"; do
    for token in "" observability-test-token; do
      # shellcheck disable=SC2086
      IMGQ_DASHBOARD_TOKEN=$token $compose $profile config >/dev/null || { echo "FAILED: $compose $profile config" >&2; exit 1; }
    done
  done
  echo "-- $compose takes the compose file"
done

[ -z "$(left_out)" ] || { echo "LEFT OUT: $(left_out)"; exit 0; }
scripts/ensure-redis.sh
programs=${IMGQ_PROGRAMS:-}
if [ -z "$programs" ]; then
  cargo build --package producer --package worker --bins --locked
  programs=${CARGO_TARGET_DIR:-target}/debug
fi
python3 -B scripts/observability/live.py "$programs"
