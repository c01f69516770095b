# A gadget unplugged under load: the pending URBs are answered before a clean end, the device can be
# neither listed nor imported, the server goes on. Then the same with vhci as the client, a disk
# being read, and control transfers: the client's kernel sees an unplugged device, and nothing is
# stuck.
limit=180
servers=usbferry

source "$vm/guest/gadget.sh"

scenario() {
  local stick round end ended how unanswered since
  stick=$(local_device STICKEHCI)
  # The loopback's bulk IN has no data before the first data sent to its bulk OUT.
  plug_gadget high-speed SourceSink Loopback
  start_usbferry 3240 --device 0525:a4a0 --device "$stick"
  for round in 1 2; do
    start_load '' 127.0.0.1 "$gadget_busid" 0 32 16 200 1 16
    unplug_under_load "$load"
    end=$(tail -n 1 "$state/load")
    read -r _ ended how unanswered _ _ since _ <<< "$end"
    note "round $round: end after $(seconds_between "$unplugged_at" "${ended%:}") s; ${end#*: }"
    [[ $how == 'clean;' ]] || fail "the end was not a clean one"
    # URBs sent after the unplug may come too late for an answer.
    ((unanswered == 0)) || awk "BEGIN {exit !(${since%;} > $unplugged_at)}" ||
      fail "URBs sent before the gadget was unplugged were not answered"
    # ESHUTDOWN, ENODEV, or EPROTO from the controller, which knows first.
    grep -qE 'silent URBs:( -(108|19|71)){16}$' <<< "$end" || fail "pending URBs were not answered"
    plug_again
  done
  unplug_gadget

  plug_gadget high-speed mass_storage
  for round in 1 2; do
    unplug_under_vhci
    plug_again
  done
  # Left as if nothing had happened.
  wait_for 20 "the local driver" has_driver "$gadget_busid" usb-storage
  stop_server
  unplug_gadget
}

unplug_under_vhci() {
  local disk control stuck
  attach "$gadget_busid"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  step "load on $attached"
  start control python3 "$vm/guest/usbfs.py" control "$attached"
  control=$started
  wait_until_said 30 control holding
  start_reads "$disk"
  unplug_under_load "$reads" "$control"
  reads_failed
  grep -qE 'ENODEV|ESHUTDOWN|EPROTO|EPIPE' "$state/control" ||
    fail "control transfers saw no error: $(tail -n 1 "$state/control")"
  wait_for 10 "$attached to go" device_gone "$attached"
  stuck=$(stuck_tasks)
  [[ -z $stuck ]] || fail "stuck: $stuck"
}

unplug_under_load() { # the load's processes
  local process list
  step "unplug the gadget"
  unplugged_at=$EPOCHREALTIME
  disconnect_gadget
  for process in "$@"; do
    wait_for 10 "the load to end" process_gone "$process"
    wait "$process" || true
  done
  wait_for 5 "the gadget to go" device_gone "$gadget_busid"
  list=$(usbip_py 127.0.0.1 list)
  [[ $list == "$stick "* && $list != *"$gadget_busid"* ]] || fail "listed now: $list"
  [[ $(usbip_py 127.0.0.1 import "$gadget_busid") == 4 ]] || fail "the next import is not ST_NODEV"
}

plug_again() {
  step "plug it in again"
  connect_gadget
  wait_for 5 "the gadget to be listed" listed "$gadget_busid"
}
