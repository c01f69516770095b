# A device with strings of a line break, half a surrogate and 126 characters, with interfaces
# numbered 200 and 7, and with class descriptors in odd places. The lists stay complete, the client
# reads the same descriptors as the host, and the interface with endpoints works.
limit=120
servers=usbferry
zoo=yes

source "$vm/guest/program.sh"

scenario() {
  local file
  load_usbserial 0003
  plug_program odd
  wait_for 30 "the port of $program_busid" tty_of "$program_busid"
  serve "$program_busid"
  wait_for 20 "usbip list -r to show $program_busid and nothing else" alone_offered
  "$usbferry" list > "$state/list"
  grep -q "^ *$program_busid" "$state/list" || fail "usbferry list does not show $program_busid"
  ! grep -qP '[\x00-\x08\x0b-\x1f]' "$state/list" || fail "usbferry list prints control characters"
  attach "$program_busid"
  for file in descriptors manufacturer product serial; do
    cmp "/sys/bus/usb/devices/$program_busid/$file" "/sys/bus/usb/devices/$attached/$file" ||
      fail "$file differs from the host's"
  done
  [[ -e /sys/bus/usb/devices/$attached/$attached:1.200 ]] || fail "no interface 200"
  wait_for 30 "the port of $attached" tty_of "$attached"
  loop_through "$(tty_of "$attached")" 10000
  note "descriptors and strings as on the host, 10,000 bytes there and back by interface 7"
  detach "$attached"
  wait_for 15 "$program_busid to be released" released "$program_busid" usbserial_generic
  stop_server
  unplug_program
}

alone_offered() { [[ $(remote_busids) == "$program_busid" ]]; }
