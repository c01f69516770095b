#!/usr/bin/env bash
# A program with a session of labgrid's client library can't check places any more once any exporter
# of the lab has left, also places with other exporters: check_matches, which `labgrid-client acquire`
# calls, fails with KeyError 'cls'. The session keeps an empty entry for a resource that has left, and
# check_matches asks each entry for its class. labgrid-client has a new session for each command, and
# does not notice; a program that stays, such as a scheduler, does.
#
# Seen with labgrid 26.0.1: its coordinator, and two exporters with a resource each, over loopback.
#
# Output at the time of writing:
#   both exporters: matched | one has left, place of the other: KeyError 'cls' | new session: matched
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  labgrid==26.0.1 grpcio==1.85.3 protobuf==7.36.2
cd "$folder"
port=$((20000 + RANDOM % 20000))
export LG_COORDINATOR=127.0.0.1:$port

venv/bin/labgrid-coordinator --listen "$LG_COORDINATOR" > coordinator.log 2>&1 &
until grep -q listening coordinator.log; do sleep 0.2; done
cat > exporter.yaml << 'YAML'
bench:
  NetworkService:
    address: 192.0.2.1
    username: root
YAML
for name in stays leaves; do
  venv/bin/labgrid-exporter --name "$name" exporter.yaml > "$name.log" 2>&1 &
  echo $! > "$name.pid"
  until grep -q "queued update for resource" "$name.log" && grep -q "Exporter ready" "$name.log"; do
    sleep 0.2
  done
done
venv/bin/labgrid-client -p box create > client.log 2>&1
venv/bin/labgrid-client -p box add-match 'stays/bench/*' >> client.log 2>&1

cat > check.py << 'PYTHON'
import os
import signal
import sys

from labgrid.remote.client import start_session


def checked(session):
    try:
        session.check_matches(session.places["box"])
        return "matched"
    except Exception as error:
        return f"{type(error).__name__} {error}"


async def until_left(session):
    while session.resources["leaves"]["bench"]["NetworkService"].data:
        await session.sync_with_coordinator()


session = start_session(os.environ["LG_COORDINATOR"])
words = [checked(session)]
if sys.argv[1:]:
    os.kill(int(sys.argv[1]), signal.SIGTERM)
    session.loop.run_until_complete(until_left(session))
    words.append(checked(session))
print(*words, sep=" | one has left, place of the other: ")
PYTHON
long=$(venv/bin/python check.py "$(< leaves.pid)" 2> python.log)
new=$(venv/bin/python check.py 2>> python.log)
line="both exporters: $long | new session: $new"
echo "$line"
[[ $line == "both exporters: matched | one has left, place of the other: KeyError 'cls' | new session: matched" ]]
