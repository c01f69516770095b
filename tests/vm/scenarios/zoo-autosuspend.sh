# An ACM gadget, suspended by the client whenever unused: messages both ways over a port that is
# open while the device sleeps. A message to the device wakes the device. A message to the host
# waits in the gadget until the device is awake for another reason: Linux 6.1's ACM gadget wakes no
# host, and USB/IP has no message for a wakeup. So the behaviour through a server must equal the
# behaviour on dummy_hcd itself. No message may be lost.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"
messages=6

scenario() {
  modprobe cdc-acm
  make_gadget 0x000a
  add_function 1 acm.0
  # With remote wakeup; without, an open port keeps the device awake.
  echo 0xa0 > "$gadget/configs/c.1/bmAttributes"
  connect_gadget
  wait_for 30 "the local driver" has_driver "$gadget_busid" cdc_acm
  exchange "$gadget_busid" "without USB/IP"
  attach_and_release "$gadget_busid" cdc_acm judge
  remove_gadget
}

judge() {
  wait_for 30 "the port of $attached" tty_of "$attached"
  exchange "$attached" "through $server"
}

# Messages to and from the gadget, each after the device was put to sleep.
exchange() { # device, how
  local port i host device power=/sys/bus/usb/devices/$1/power
  port=$(tty_of "$1")
  stty -F "$port" raw -echo
  stty -F /dev/ttyGS0 raw -echo
  echo 0 > "$power/autosuspend_delay_ms"
  echo auto > "$power/control"
  exec {host}<> "$port" {device}<> /dev/ttyGS0
  for ((i = 0; i < messages; i++)); do
    step "message $i of $1"
    wait_for 20 "$1 to sleep" asleep "$power"
    echo "to the device $i" >&"$host"
    hears "$device" "to the device $i"
    ((i == 0)) || hears "$host" "to the host $((i - 1))"
    wait_for 20 "$1 to sleep" asleep "$power"
    echo "to the host $i" >&"$device"
  done
  echo on > "$power/control"
  hears "$host" "to the host $((messages - 1))"
  exec {host}>&- {device}>&-
  note "$2: $messages messages each way, the device asleep before each"
}
asleep() { [[ $(< "$1/runtime_status") == suspended ]]; }
hears() { # descriptor, line
  local line=
  read -r -t $((20 * patience)) -u "$1" line || true
  [[ $line == "$2" ]] || fail "'$2' did not arrive, but '$line'"
}
