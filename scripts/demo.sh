#!/usr/bin/env bash
# The main job on this machine, from nothing to pictures on disk: builds imgq, makes sure that there is a Redis, and
# downloads Imgur's random gallery. With IMGUR_CLIENT_ID set that is the real one, else that of the bundled simulator.
#   scripts/demo.sh [arguments for `producer run`]
set -euo pipefail
cd "$(dirname "$0")/.."

started=()
stop() { for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; [ -n "${container:-}" ] && docker rm -f "$container" >/dev/null 2>&1 || true; }
trap stop EXIT

# Without default features: the simulator alone, none of the test harness's container client.
cargo build --release --locked --package producer --package worker --package tests --bin producer --bin worker --bin imgur-sim --no-default-features
export PATH="$PWD/target/release:$PATH"

# An empty REDIS_URL means: a private server.
if [ -z "${REDIS_URL:-}" ] && ! scripts/ensure-redis.sh; then
  docker info >/dev/null 2>&1 || { echo "error: neither redis-server nor a Docker engine can be had here" >&2; exit 1; }
  echo "using Redis from Docker" >&2
  container=$(docker run -d --rm -p 127.0.0.1::6379 redis:7-bookworm redis-server --appendonly yes)
  REDIS_URL="redis://$(docker port "$container" 6379/tcp | head -1)/0"
  export REDIS_URL
  for _ in $(seq 100); do docker exec "$container" redis-cli ping >/dev/null 2>&1 && break; sleep 0.1; done
fi

storage=${IMGQ_STORAGE:-./images}
if [ -n "${IMGUR_CLIENT_ID:-}" ]; then
  echo "Imgur's random gallery, with your client id"
else
  echo "IMGUR_CLIENT_ID is not set: using the Imgur simulator that comes with imgq"
  ready=$(mktemp)
  # The same port each time if it is free: then a second demo finds its pictures already there.
  for listen in 127.0.0.1:8910 127.0.0.1:0; do
    imgur-sim --listen "$listen" --pages 20 >"$ready" 2>/dev/null & simulator=$!
    for _ in $(seq 100); do [ -s "$ready" ] || ! kill -0 "$simulator" 2>/dev/null && break; sleep 0.05; done
    [ -s "$ready" ] && break
  done
  [ -s "$ready" ] || { echo "error: the simulator did not start" >&2; exit 1; }
  started+=("$simulator")
  url() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$ready"; }
  IMGUR_API_URL=$(url api_url); IMGUR_WEB_URL=$(url web_url); IMGUR_IMAGE_URL=$(url image_url)
  export IMGUR_API_URL IMGUR_WEB_URL IMGUR_IMAGE_URL IMGUR_CLIENT_ID=demo
  # The simulator is on this machine, where no worker may connect to unless it is told so.
  export IMGQ_ALLOW_NETWORKS=127.0.0.0/8
  rm -f "$ready"
fi

# A storage that is named as an argument is where the pictures will be.
previous=
for argument in "$@"; do
  case "$argument" in --storage=*) storage=${argument#--storage=} ;; esac
  [ "$previous" = --storage ] && storage=$argument
  previous=$argument
done

code=0
producer run imgur:random --pages 2 --storage "$storage" "$@" || code=$?
# 3: finished, but some were not stored; a gallery has removed images now and then.
if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then exit "$code"; fi
echo
echo "$(find "$storage" -type f -not -path '*/.imgq-tmp/*' | wc -l) pictures lie in $(cd "$storage" && pwd), for example:"
find "$storage" -type f -not -path '*/.imgq-tmp/*' | sort | sed -n 1,5p
