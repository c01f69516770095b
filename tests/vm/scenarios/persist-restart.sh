# The server killed or stopped, and started again, 20 times under `usbferry attach --persist`: the
# device is back each time, by itself. `usbip detach` ends the client, and SIGTERM detaches.
limit=400
servers=usbferry

source "$vm/guest/client.sh"
rounds=20

scenario() {
  local busid round
  busid=$(local_device STICKXHCI)
  serve "$busid"
  keep_attached '' 127.0.0.1 "$busid"
  wait_attached 30
  : > "$state/back"
  for ((round = 1; round <= rounds; round++)); do
    if ((round % 2)); then kill_server; else stop_server; fi
    wait_lost 10
    serve "$busid"
    since=$EPOCHREALTIME
    # The longest wait between two tries is 2 s; emulation takes the rest.
    wait_attached 15
    echo "$(seconds_between "$since" "$EPOCHREALTIME")" >> "$state/back"
  done
  note "attached again after $(median_and_most "$state/back")"
  (($(said_times "lost from port") == rounds)) || fail "lost $(said_times "lost from port") times"
  (($(said_times "attached to port") == rounds + 1)) || fail "not one attach for each start"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  dd if="$(block_device_of "$attached")" bs=1M count=2 iflag=direct status=none |
    cmp - <(head -c 2M "$run/stick-xhci.img") || fail "other data than before"

  step "usbip detach ends the client"
  detach "$attached"
  end_client
  grep -q "another program has detached port" "$log/$name.client.log" || fail "$(tail -n 1 "$log/$name.client.log")"
  wait_for 15 "$busid to be released" released "$busid" usb-storage

  step "SIGTERM detaches"
  keep_attached '' 127.0.0.1 "$busid"
  wait_attached 30
  end_client TERM
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  stop_server
}
