# The stock tool attaches by nickname, VID:PID, VID:PID:SERIAL and serial:… across 50 replugs, half of
# them under the client's hands.
limit=1200
measures=yes
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/rules.sh"

scenario() {
  local turn
  serve_programmer
  [[ $(remote_busids) == programmer ]] || fail "usbip list -r shows: $(remote_busids)"

  for ((turn = 0; turn < 50; turn++)); do
    replug "${programmer_names[turn % 4]}" $((turn % 2))
  done
  note "50 replugs, each attached at once by ${programmer_names[*]}"

  stop_server
  unplug_gadget
}

replug() { # name, whether the client has the device when it is pulled
  disconnect_gadget
  wait_for 5 "the gadget to go" device_gone "$gadget_busid"
  [[ -z ${attached-} ]] || wait_for 20 "$attached to go" device_gone "$attached"
  attached=
  connect_gadget
  attach "$1"
  [[ $(serial_of "$attached") == "$gadget_serial" ]] || fail "$1 is $(serial_of "$attached")"
  (($2)) || detach "$attached"
}
