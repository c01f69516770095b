# The recorder between vhci and the server (record.py): the server is on port 3240, clients come to
# 3241. Sourced by the scenarios that record the behaviour of a kernel's client.

start_recorder() {
  step "start the recorder"
  start recorder python3 "$vm/guest/record.py" 3241 127.0.0.1 3240 3299
  recorder=$started
  wait_until_said 20 recorder listening
}
stop_recorder() {
  kill "$recorder"
  wait "$recorder" 2> /dev/null || true
}

# Gives the recorder a command, and prints its answer.
recorder() { # word...
  local commands
  exec {commands}<> /dev/tcp/127.0.0.1/3299
  echo "$*" >&"$commands"
  cat <&"$commands"
  exec {commands}>&-
}

# Notes the new recordings, a note for each endpoint.
note_recorded() { # what it was
  local line
  while read -r line; do note "$1: $line"; done < <(recorder table)
}

# The ports of vhci in use, with or without a device; free ports have state 4.
ports_in_use() {
  sed -nE 's/^[hs]s +([0-9]+) (00[^4]).*/\1/p' /sys/devices/platform/vhci_hcd.0/status*
}
no_port_in_use() { [[ -z $(ports_in_use) ]]; }

# The first lines of vhci in the kernel's log since the mark.
mark_log() { echo "vmtest: mark" > /dev/kmsg; }
vhci_said() {
  dmesg | awk '/vmtest: mark/ {n = 0; next}
    /vhci_hcd/ && !/unlink->seqnum|already given back/ {sub(/^\[[^]]*\] */, ""); said[n++] = $0}
    END {for (i = 0; i < n && i < 4; i++) printf "%s; ", said[i]}'
}
