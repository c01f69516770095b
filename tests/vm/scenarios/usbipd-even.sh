# Blocks of 4 KiB of a stick on xHCI, read and written through the kernel's own exporter and through
# usbferry, with default settings and without looking for work before sleeping (sleeping), in turns
# within one boot. As usbipd-ratio, but on an even machine (see run): with one processor, on which the
# client, the server and the device's driver take turns, and no cost but instructions. The scenario
# prints the ratios without judging.
limit=2400
measures=yes
servers=usbferry
even=yes

rounds=12
blocks=512

source "$vm/guest/ratio.sh"

scenario() {
  local xhci round which
  xhci=$(local_device STICKXHCI)
  : > "$state/times"
  for ((round = 1; round <= rounds; round++)); do
    # None is always the first.
    if ((round % 2)); then which='usbferry usbipd sleeping'; else which='sleeping usbipd usbferry'; fi
    for which in $which; do measure "$which"; done
  done
  ratios "$rounds"
}

measure() { # server
  # The server for the functions of lib.sh.
  local server=usbferry disk
  case $1 in
    usbipd) server=usbipd && serve "$xhci" ;;
    usbferry) serve "$xhci" ;;
    sleeping) start_usbferry 3240 --device "$xhci" --busy-poll 0us ;;
  esac
  attach "$xhci"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  move "$1"
  detach "$attached"
  wait_for 15 "$xhci to be released" released "$xhci" usb-storage
  stop_server
  wait_for 20 "the local driver" has_driver "$xhci" usb-storage
}

move() { # by
  local bytes=$((blocks * 4096))
  step "round $round: through $1"
  # The first blocks teach the server.
  blockwise "if=$disk" of=/dev/null iflag=direct
  timed "$1" xHCI 'read 4 KiB' $bytes blockwise "if=$disk" of=/dev/null iflag=direct
  timed "$1" xHCI 'write 4 KiB' $bytes blockwise if=/dev/zero "of=$disk" oflag=direct
}

blockwise() { dd bs=4k count="$blocks" status=none "$@"; }
