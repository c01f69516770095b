# A stick on xHCI through the kernel's own exporter and through usbferry, with default settings and
# without looking for work before sleeping: instructions and system calls a URB of each server, in
# the kernel and outside, counted by counter.c. Unlike the times of usbipd-ratio, the counts hardly
# depend on this machine's speed or other load. With BARE, a bench's program (`cargo bench --bench
# libusb --no-run`), the bare server is the fourth. The scenario prints without judging.
limit=1200
measures=yes
counts=yes
servers=usbferry

source "$vm/guest/ratio.sh"
source "$vm/guest/counting.sh"

scenario() {
  local xhci which line lines
  xhci=$(local_device STICKXHCI)
  counted=$log/$name.counted
  : > "$counted"
  for which in usbipd usbferry sleeping ${bare:+bare}; do measure "$which"; done
  lines=$(python3 "$vm/guest/counted.py" --tables usbipd < "$counted") ||
    fail "the counts make no table"
  while read -r line; do note "$line"; done <<< "$lines"
}

measure() { # server
  local server=usbferry port=3240 disk pids
  case $1 in
    usbipd) server=usbipd && serve "$xhci" ;;
    usbferry) serve "$xhci" ;;
    sleeping) start_usbferry "$port" --device "$xhci" --busy-poll 0us ;;
    bare) start_bare ;;
  esac
  attach "$xhci" "$port"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  if [[ $1 == bare ]]; then pids=$bare_pid; else pids=$(server_pids); fi
  # The pids are words of their own.
  count_server $pids
  # usbferry maps memory of the device once a few MiB have moved.
  move_read "$disk" '1 MiB'
  for load in 'read 4 KiB' 'write 4 KiB' 'read 1 MiB' 'write 1 MiB'; do
    step "$load through $1"
    count "$load, $1" "move_${load%% *}" "$disk" "${load#* }"
  done
  detach "$attached"
  if [[ $1 != bare ]]; then
    wait_for 15 "$xhci to be released" released "$xhci" usb-storage
    stop_server
  fi
  wait_for 20 "the local driver" has_driver "$xhci" usb-storage
  if [[ $1 == bare ]]; then kill "$bare_pid"; fi
}

# The blocks of a load for dd; what is written is what is there.
blocks() { if [[ $1 == '4 KiB' ]]; then echo bs=4k count=256; else echo bs=1M count=4; fi; }
move_read() { dd "if=$1" of=/dev/null iflag=direct $(blocks "$2") status=none; }
move_write() { dd "if=$run/stick-xhci.img" "of=$1" oflag=direct $(blocks "$2") status=none; }

# Starts the bare server of the benches, which chooses its port.
start_bare() {
  step "$bare --serve-bare"
  "$bare" --serve-bare 127.0.0.1 > "$state/bare" 2>&1 &
  bare_pid=$!
  wait_for 20 "the bare server" grep -q '^listening on' "$state/bare"
  port=$(sed -n 's/^listening on .*://p' "$state/bare")
}
