# Sticks on xHCI and EHCI through the kernel's own exporter and through usbferry: with default
# settings, without looking for work before sleeping (sleeping), and without memory mapped from the
# device (copying). In turns within one boot: small and large blocks, reads and writes. The data is
# checked. Then the same beside one busy process on each processor, without copying. Only the ratios
# of the times mean anything, and the scenario prints them without judging: under emulation a ratio is
# a ratio of the processors' work.
limit=2400
measures=yes
servers=usbferry

rounds=5

source "$vm/guest/ratio.sh"

scenario() {
  local xhci ehci round which
  xhci=$(local_device STICKXHCI)
  ehci=$(local_device STICKEHCI)
  cp "$run/stick-xhci.img" "$state/xhci.img"
  cp "$run/stick-ehci.img" "$state/ehci.img"
  : > "$state/times"
  for ((round = 1; round <= rounds; round++)); do
    # None is always the first.
    if ((round % 2)); then which='usbferry usbipd sleeping copying'; else which='copying sleeping usbipd usbferry'; fi
    for which in $which; do
      beside='' measure "$which"
      [[ $which == copying ]] || beside=', busy' measure "$which"
    done
  done
  cmp "$run/stick-xhci.img" "$state/xhci.img" || fail "the file behind $xhci lacks what was written"
  cmp "$run/stick-ehci.img" "$state/ehci.img" || fail "the file behind $ehci lacks what was written"
  ratios "$rounds"
}

# Measures both sticks in turn through a server. $beside: empty, or beside busy processes.
measure() { # server
  # The server for the functions of lib.sh.
  local server=usbferry
  case $1 in
    usbipd) server=usbipd && serve "$xhci" "$ehci" ;;
    usbferry) serve "$xhci" "$ehci" ;;
    sleeping) start_usbferry 3240 --device "$xhci" --device "$ehci" --busy-poll 0us ;;
    copying) start_usbferry 3240 --device "$xhci" --device "$ehci" --device-memory 0 ;;
  esac
  attach_and_time "$1" "$xhci" xHCI "$state/xhci.img"
  attach_and_time "$1" "$ehci" EHCI "$state/ehci.img"
  stop_server
  wait_for 20 "the local driver" has_driver "$xhci" usb-storage
  wait_for 20 "the local driver" has_driver "$ehci" usb-storage
}

attach_and_time() { # by, busid, controller, image
  attach "$2"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  step "round $round: $3$beside through $1"
  [[ -z $beside ]] || occupy_processors
  # The pids are words of their own.
  python3 "$vm/guest/disk.py" "$(block_device_of "$attached")" "$4" $(server_pids) > "$state/timed" 2>&1 ||
    fail "$3$beside through $1: $(tail -n 1 "$state/timed")"
  leave_processors
  sed "s/^/$3$beside;$1;/" "$state/timed" >> "$state/times"
  detach "$attached"
  wait_for 15 "$2 to be released" released "$2" usb-storage
}
