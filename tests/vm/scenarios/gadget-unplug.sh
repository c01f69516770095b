# A gadget unplugged under load: every URB is answered before a clean end, the device is no more
# listed nor importable, the server goes on. Then the same with vhci for a client, under bulk and under
# control transfers: its kernel takes it for an unplugged device.
limit=120
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/usbtest.sh"

scenario() {
  local stick round
  stick=$(local_device STICKEHCI)
  plug_gadget high-speed SourceSink
  serve "$gadget_busid" "$stick"

  for round in 1 2 3; do
    start_load '' 127.0.0.1 "$gadget_busid" 0 32 32 200
    unplug_under_load "$load"
    note "round $round: $(tail -n 1 "$state/load")"
    grep -q '^end [0-9.]*: clean, 0 URBs unanswered' "$state/load" ||
      fail "round $round: $(tail -n 1 "$state/load")"
    plug_again
  done

  # Case 27 queues bulk transfers, case 10 control transfers; more rounds than there is time for.
  for round in 27 10; do
    attach "$gadget_busid"
    modprobe usbtest
    wait_for 20 "usbtest to take $attached" has_driver "$attached" usbtest
    step "usbtest case $round until the end"
    python3 "$vm/guest/usbtest.py" "$attached" "$(endlessly $round)" /dev/null \
      > "$state/usbtest" 2>&1 &
    load=$!
    wait_for 30 "the case to run" grep -q pass "$state/usbtest"
    unplug_under_load "$load"
    grep -qE 'FAIL (ENODEV|ESHUTDOWN|EPROTO|ECONNRESET)' "$state/usbtest" ||
      fail "case $round did not see the unplug: $(tail -n 1 "$state/usbtest")"
    wait_for 10 "$attached to go" device_gone "$attached"
    rmmod usbtest
    plug_again
  done

  stop_server
  unplug_gadget
}

endlessly() { # case
  printf "$1%.0s," {1..500}
  echo "$1"
}

unplug_under_load() { # the load's process
  local list
  step "unplug the gadget"
  disconnect_gadget
  wait_for 10 "the load to end" process_gone "$1"
  wait "$1" || true
  wait_for 5 "the gadget to go" device_gone "$gadget_busid"
  list=$(usbip_py 127.0.0.1 list)
  [[ $list == "$stick "* ]] || fail "listed now: $list"
  [[ $(usbip_py 127.0.0.1 import "$gadget_busid") == 4 ]] || fail "the next import is not ST_NODEV"
}

plug_again() {
  step "plug it in again"
  connect_gadget
  wait_for 5 "the gadget to be listed" listed "$gadget_busid"
}
listed() { usbip_py 127.0.0.1 list | grep -q "^$1 "; }
