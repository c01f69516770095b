# The server killed in mid-transfer while a disk is read through vhci. The client's kernel sees an
# unplugged device, nothing is stuck, and the port is free. The next start of the server gives the
# devices left without a driver back to the local driver, and exports as ever.
limit=120
servers=usbferry

scenario() {
  local busid disk stuck
  busid=$(local_device STICKXHCI)
  serve "$busid"
  attach "$busid"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  step "read from $attached"
  start_reads "$disk"

  kill_server
  step "the reader ends"
  wait_for 20 "the reader to end" process_gone "$reads"
  reads_failed
  wait_for 10 "$attached to go" device_gone "$attached"
  [[ -z $(usbip_tool port 2> /dev/null | grep '^Port') ]] || fail "a port of vhci is still in use"
  step "look for stuck tasks"
  stuck=$(stuck_tasks)
  [[ -z $stuck ]] || fail "stuck: $stuck"

  step "the next server repairs what was left"
  note "before the next start: $(drivers_of "$busid")"
  serve "$busid"
  wait_for 10 "the local driver, which the next server gives back" has_driver "$busid" usb-storage
  attach "$busid"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  dd if="$(block_device_of "$attached")" bs=1M count=2 iflag=direct status=none |
    cmp - <(head -c 2M "$run/stick-xhci.img") || fail "other data than before"
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  stop_server
}

