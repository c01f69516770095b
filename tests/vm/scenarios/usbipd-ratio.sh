# Sticks on xHCI and EHCI through usbferry and through the kernel's own exporter, in turns within one
# boot: small and large blocks, reads and writes. The data is checked; of the times only the ratio says
# something, and it is told, not judged: under emulation it is that of the processors' work.
limit=400
measures=yes
servers=usbferry

rounds=3

scenario() {
  local xhci ehci round which
  xhci=$(local_device STICKXHCI)
  ehci=$(local_device STICKEHCI)
  cp "$run/stick-xhci.img" "$state/xhci.img"
  cp "$run/stick-ehci.img" "$state/ehci.img"
  : > "$state/times"
  for ((round = 1; round <= rounds; round++)); do
    # Neither is always the first.
    if ((round % 2)); then which='usbferry usbipd'; else which='usbipd usbferry'; fi
    for which in $which; do
      measure "$which"
    done
  done
  cmp "$run/stick-xhci.img" "$state/xhci.img" || fail "the file behind $xhci lacks what was written"
  cmp "$run/stick-ehci.img" "$state/ehci.img" || fail "the file behind $ehci lacks what was written"
  ratios
}

# Both sticks through that server, one after the other.
measure() { # server
  # What lib.sh starts and stops.
  local server=$1
  serve "$xhci" "$ehci"
  attach_and_time "$xhci" xHCI "$state/xhci.img"
  attach_and_time "$ehci" EHCI "$state/ehci.img"
  stop_server
  wait_for 20 "the local driver" has_driver "$xhci" usb-storage
  wait_for 20 "the local driver" has_driver "$ehci" usb-storage
}

attach_and_time() { # busid, controller, image
  attach "$1"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  step "round $round: $2 through $server"
  python3 "$vm/guest/disk.py" "$(block_device_of "$attached")" "$3" > "$state/timed" 2>&1 ||
    fail "$2 through $server: $(tail -n 1 "$state/timed")"
  sed "s/^/$2;$server;/" "$state/timed" >> "$state/times"
  detach "$attached"
  wait_for 15 "$1 to be released" released "$1" usb-storage
}

# A line for each kind of load: the median of each server, and of the rounds' ratios.
ratios() {
  local line lines
  cat "$state/times"
  lines=$(python3 "$vm/guest/ratios.py" usbferry usbipd "$rounds" < "$state/times") ||
    fail "not every round was timed"
  while read -r line; do note "$line"; done <<< "$lines"
}
