# The simulated serial adapter under cdc_acm, used like a terminal: the line coding of stty arrives
# and is read back, written data comes back, modem lines and breaks are heard, and the end of the
# connection is a hang-up.
limit=90
servers=usbferry

scenario() {
  local busid tty
  modprobe cdc-acm
  simulate serial
  busid=$(simulated_busid)
  attach "$busid"
  wait_for 20 "the terminal of $attached" tty_of "$attached"
  tty=$(tty_of "$attached")
  has_driver "$attached" cdc_acm || fail "cdc_acm has not both interfaces: $(drivers_of "$attached")"
  step "talk to $tty"
  python3 "$vm/guest/serial.py" "$tty" || fail "see serial.log"
  note "line codings, 1 MiB of echo, modem lines and a break: right"
  step "pull the plug"
  start held python3 "$vm/guest/serial.py" "$tty" hold
  wait_until_said 20 held holding
  detach "$attached"
  wait_for 20 "the terminal to hang up" process_gone "$started"
  wait "$started" || fail "$(tail -n 1 "$state/held")"
  stop_server
}
