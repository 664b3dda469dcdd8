#!/bin/sh
# End to end: the two nodes of docker-compose.yml on a real engine.
#
# Needs Docker, and `docker compose` or docker-compose. What it makes has a name of its own, or its
# label, and is removed at the end, also on Ctrl-C; what else there is on the engine stays as it is.
#
#   PYTHON_IMAGE          the base image; else python:3.11-slim, and where no registry gives that,
#                         one made of this machine's own Python
#   E2E_PORT1, E2E_PORT2  the nodes' ports on 127.0.0.1; by default any free ones
#   COMPOSE               the compose command; by default what is there
#   PYTHON                a Python for what needs one; by default what is there
set -eu
cd "$(dirname "$0")"

began=$(date +%s)
project=container-manager-e2e-$began-$$
label=container-manager-e2e=$project            # of the containers that the nodes deploy
image_label=container-manager-e2e-image=$project # of all images, also of an unfinished build's
directory=$(mktemp -d)
child=

say() { printf '%4d s  %s\n' $(($(date +%s) - began)) "$*"; }

fail() {
    say "FAILED: $*" >&2
    exit 1
}

# Run something that takes its time, so that a signal can end it; show what it says if it fails.
run() {
    "$@" >"$directory/log" 2>&1 &
    child=$!
    wait "$child" || {
        child=
        tail -n 40 "$directory/log" >&2
        fail "$*"
    }
    child=
}

clean_up() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || :
        wait "$child" 2>/dev/null || :
    fi
    if [ "$code" -ne 0 ] && [ -n "${started:-}" ]; then
        $compose logs --tail=20 2>&1 | tail -n 60 >&2 || :
    fi
    say "Cleaning up"
    # First the nodes, which then can make no more containers.
    if [ -n "${started:-}" ]; then
        $compose down --volumes --remove-orphans >"$directory/log" 2>&1 || {
            cat "$directory/log" >&2
            code=1
        }
    fi
    # Twenty seconds: a build that was broken off takes a moment to end.
    eventually 20 removed || {
        echo "Left: $(containers) $(images)" >&2
        code=1
    }
    rm -r "$directory"
    [ "$code" -ne 0 ] || say "Passed"
    exit "$code"
}

containers() {
    docker container ls --all --quiet --filter "label=$label"
    docker container ls --all --quiet --filter "label=$image_label"
}

images() {
    docker image ls --all --quiet --no-trunc --filter "label=$image_label"
    docker image ls --quiet --no-trunc "$project"
}

# Remove what there is, and tell whether nothing is left.
removed() {
    for found in $(containers); do
        docker container rm --force --volumes "$found" >/dev/null 2>&1 || :
    done
    # The newest first; what it alone was made of goes with it.
    while found=$(images | head -n 1) && [ -n "$found" ]; do
        docker image rm --force "$found" >/dev/null 2>&1 || return 1
    done
    [ -z "$(containers)" ]
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Look again and again until it is so; give up after so many seconds.
eventually() {
    until=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt $until ] || return 1
        sleep 0.2
    done
}

# GET, or POST what is given, and print the answer.
http() {
    url=http://$1$2
    shift 2
    if command -v curl >/dev/null; then
        curl --silent --max-time 90 --fail-with-body "$url" \
            ${1:+--header "Content-Type: application/json" --data "$1"}
    else
        "$python" - "$url" "$@" <<'PYTHON'
import sys, urllib.request
url, *body = sys.argv[1:]
request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
data = body[0].encode() if body else None
try:
    print(opener.open(request, data, timeout=90).read().decode())
except OSError as error:
    sys.exit(str(error))
PYTHON
    fi
}

call() {
    http "$1" /jrpc "{\"jsonrpc\":\"2.0\",\"method\":\"$2\",\"params\":[$3],\"id\":1}"
}

# The first text of this name in an answer.
text() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

# The id of the container that an answer tells of.
container() { grep -o '"container":{"id":"[0-9a-f]*"' | cut -d '"' -f 6; }

is_ready() { http "$1" /readyz >"$directory/readyz" 2>&1; }

sees_both() { [ "$(call "$1" NodeService.List '{}' | grep -o '"state":"alive"' | wc -l)" -eq 2 ]; }

# Whether a node says of the job that it is complete, with the one container, and `$2` as well.
tells() {
    answer=$(call "$1" ContainerService.Status "{\"job_id\":\"$job\"}") || return 1
    [ "$(echo "$answer" | text status)" = complete ] || return 1
    [ "$(echo "$answer" | container)" = "$id" ] || return 1
    echo "$answer" | grep -q "$2"
}

only_one_container() {
    there=$(docker container ls --all --quiet --no-trunc --filter "label=io.container-manager.job=$job")
    labelled=$(docker container ls --all --quiet --no-trunc --filter "label=$label")
    [ "$there" = "$id" ] && [ "$labelled" = "$id" ]
}

stop() {
    running=$($compose ps --quiet "$1")
    at=$(date +%s)
    run $compose stop "$1"
    took=$(($(date +%s) - at))
    exited=$(docker container inspect --format '{{.State.ExitCode}}' "$running")
    [ "$exited" = 0 ] || fail "$1 ended with exit code $exited"
    [ "$took" -lt 10 ] || fail "$1 took $took s to end"
    say "$1 stopped in $took s, exit code 0"
}

# --- What it is run with ---

python=
for found in "${PYTHON:-}" .venv/bin/python python3; do
    [ -n "$python" ] || ! command -v "$found" >/dev/null || python=$found
done
[ -n "$python" ] || command -v curl >/dev/null || fail "neither curl nor python3 is here"
docker version >"$directory/log" 2>&1 || {
    cat "$directory/log" >&2
    fail "no engine answers; start Docker, and see that this user may use it"
}
compose=${COMPOSE:-}
if [ -z "$compose" ] && docker compose version >/dev/null 2>&1; then
    compose="docker compose"
elif [ -z "$compose" ] && command -v docker-compose >/dev/null; then
    compose=docker-compose
fi
[ -n "$compose" ] || fail "neither docker compose nor docker-compose is here; install one"
say "$compose $($compose version --short), project $project"

# Only these count, whatever else is set here.
unset COMPOSE_PROFILES COMPOSE_ENV_FILES MANAGER_USER
export COMPOSE_FILE=docker-compose.yml COMPOSE_PROJECT_NAME="$project"
export MANAGER_IMAGE="$project"
# The old docker-compose builds by itself, thus ends the build when it is ended.
export COMPOSE_DOCKER_CLI_BUILD=0
export MANAGER1_PORT="${E2E_PORT1:-0}" MANAGER2_PORT="${E2E_PORT2:-0}"
case ${DOCKER_HOST:-} in
unix://*) export DOCKER_SOCKET="${DOCKER_SOCKET:-${DOCKER_HOST#unix://}}" ;;
esac

if [ -z "${PYTHON_IMAGE:-}" ]; then
    PYTHON_IMAGE=python:3.11-slim
    if ! docker image inspect "$PYTHON_IMAGE" >/dev/null 2>&1 &&
        ! docker pull --quiet "$PYTHON_IMAGE" >/dev/null 2>&1; then
        say "No registry gives $PYTHON_IMAGE: making a base image of this machine's Python"
        [ -n "$python" ] || fail "there is no python3 here; name an image of it in PYTHON_IMAGE"
        PYTHON_IMAGE=$project:machine
        run "$python" tests/support/python_image.py "$PYTHON_IMAGE"
    fi
fi

# --- The nodes ---

say "Building on $PYTHON_IMAGE"
printf 'FROM %s\nLABEL %s\n' "$PYTHON_IMAGE" "$image_label" >"$directory/Dockerfile"
run docker build --tag "$project:python" "$directory"
export PYTHON_IMAGE="$project:python"
run $compose build
say "Starting manager1 and manager2"
started=yes
run $compose up -d
one=$($compose port manager1 8080)
two=$($compose port manager2 8080)
for address in "$one" "$two"; do
    eventually 60 is_ready "$address" || fail "$address is not ready: $(cat "$directory/readyz")"
done
say "Ready: manager1 at $one, manager2 at $two"
for address in "$one" "$two"; do
    eventually 20 sees_both "$address" || fail "$address has not found the other node by mDNS"
done
say "They have found each other"

# --- A job ---

job=$(call "$one" ContainerService.Create "{\"image\":\"$project\",\"pull\":\"never\",
    \"entrypoint\":[\"python3\",\"-c\"],\"arguments\":[\"import time; time.sleep(3600)\"],
    \"healthcheck\":{\"disable\":true},\"labels\":{\"${label%%=*}\":\"${label#*=}\"}}" | text job_id)
[ -n "$job" ] || fail "manager1 has not taken the job"
say "Created at manager1: job $job"
answer=$(call "$one" ContainerService.Wait "{\"job_id\":\"$job\",\"timeout\":60}")
id=$(echo "$answer" | container)
[ -n "$id" ] || fail "no container: $answer"
tells "$one" '"owner_reachable":true' || fail "at manager1 it is not complete: $answer"
say "Complete at manager1: container $id"
eventually 10 tells "$two" '"owner_reachable":true' || fail "manager2 says otherwise: $answer"
say "Complete at manager2, with the same container"
only_one_container || fail "not one container, but: $there $labelled"
say "The engine has exactly this one container of the job"

# --- One node less ---

stop manager1
eventually 10 tells "$two" '"owner_reachable":false' || fail "manager2 without manager1: $answer"
say "manager2 still tells of it, and that its node cannot be reached"
run $compose start manager1
one=$($compose port manager1 8080)
eventually 60 is_ready "$one" || fail "manager1 is not ready again: $(cat "$directory/readyz")"
eventually 20 tells "$one" '"owner_reachable":true' || fail "manager1 started again: $answer"
eventually 20 tells "$two" '"owner_reachable":true' || fail "manager2 after that: $answer"
only_one_container || fail "not one container any more, but: $there $labelled"
say "manager1, started again, goes on with it, and there is still one container"
stop manager1
stop manager2
