# Devices made of a program (device.py), attached to the second controller: real devices to the
# kernel and to libusb. usbferry exports the devices from there, and the first controller attaches
# them.
#
# Programs can do more than the gadgets of dummy_hcd. The stock dummy_hcd and usbip-vudc have no
# isochronous transfers, and a gadget's configuration ends at 4,096 bytes (USB_COMP_EP0_BUFSIZ).

# A second program needs other values.
program_port=3250 program_place=0

plug_program() { # argument of device.py...
  step "device.py $*"
  start program python3 "$vm/guest/device.py" "$program_port" "$@"
  program=$started
  wait_until_said 30 program listening
  attach_elsewhere 1-1 "$program_port" "$program_place"
  program_busid=$attached
}

# After the server has ended.
unplug_program() {
  detach "$program_busid"
  kill -KILL "$program"
  wait "$program" 2> /dev/null || true
}

# usbserial makes a serial port of a bulk loopback: the driver takes any device named to it.
load_usbserial() {
  modprobe usbserial
  echo "1209 $1" > /sys/bus/usb-serial/drivers/generic/new_id
}

# Sends bytes into a port with a loopback, and compares.
loop_through() { # port, bytes
  local reader
  stty -F "$1" raw -echo -echoe -echok
  head -c "$2" /dev/urandom > "$state/sent"
  # Opened once for both ways: the last close discards unread data.
  exec {tty}<> "$1"
  timeout $((60 * patience)) head -c "$2" <&"$tty" > "$state/received" &
  reader=$!
  cat "$state/sent" >&"$tty"
  wait "$reader" || fail "only $(stat -c %s "$state/received") of $2 bytes came back from $1"
  exec {tty}>&-
  cmp "$state/sent" "$state/received" || fail "other bytes came back from $1 than were sent"
}
