# Where the time of a URB goes, for 4 KiB blocks of a stick on xHCI through the kernel's own
# exporter and through usbferry, alone and beside a busy process on each processor: how long server
# and client run, and how long both wait for a processor. usbferry has default settings, does not
# look for work before sleeping (sleeping), or has the priority of docs/tuning.md, too (preferred).
# The scenario prints without judging.
limit=2400
measures=yes
servers=usbferry

rounds=5
blocks=128

source "$vm/guest/ratio.sh"

scenario() {
  local xhci round which lines
  xhci=$(local_device STICKXHCI)
  : > "$state/waits"
  for ((round = 1; round <= rounds; round++)); do
    # None is always the first.
    which='usbferry usbipd sleeping preferred'
    ((round % 2)) || which='preferred sleeping usbipd usbferry'
    for which in $which; do measure "$which"; done
  done
  lines=$(python3 "$vm/guest/waits.py" --table < "$state/waits") || fail "no table can be made"
  while read -r line; do note "$line"; done <<< "$lines"
}

measure() { # server
  # The server for the functions of lib.sh.
  local server=usbferry disk
  case $1 in
    usbipd) server=usbipd && serve "$xhci" ;;
    usbferry) serve "$xhci" ;;
    sleeping | preferred) start_usbferry 3240 --device "$xhci" --busy-poll 0us ;;
  esac
  if [[ $1 == preferred ]]; then renice -n -10 -p $(ls "/proc/$(server_pid)/task") > /dev/null; fi
  attach "$xhci"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  # The first blocks teach the server.
  dd "if=$disk" of=/dev/null iflag=direct bs=4k "count=$blocks" status=none
  step "round $round: through $1"
  look_at "$1"
  occupy_processors
  look_at "$1, busy"
  leave_processors
  detach "$attached"
  wait_for 15 "$xhci to be released" released "$xhci" usb-storage
  stop_server
  wait_for 20 "the local driver" has_driver "$xhci" usb-storage
}

look_at() { # label
  # The pids are words of their own.
  python3 "$vm/guest/waits.py" "$disk" "$blocks" "$1" $(server_pids) >> "$state/waits" ||
    fail "$1: no measurement"
}
