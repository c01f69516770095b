# Devices made of a program (device.py), attached to the second controller: there they are real devices
# to the kernel and to libusb. Exported from there, they are attached to the first.
#
# They are what the gadgets of dummy_hcd can't be. The stock dummy_hcd and usbip-vudc have no isochronous
# transfers, and a gadget's configuration ends at 4,096 bytes (USB_COMP_EP0_BUFSIZ).

# A second one needs others.
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

# A bulk loopback is a serial port to usbserial, which takes any device that is named to it.
load_usbserial() {
  modprobe usbserial
  echo "1209 $1" > /sys/bus/usb-serial/drivers/generic/new_id
}

# Sends bytes into a port that sends them back, and compares.
loop_through() { # port, bytes
  local reader
  stty -F "$1" raw -echo -echoe -echok
  head -c "$2" /dev/urandom > "$state/sent"
  # Opened once for both ways: whoever closes it last throws away what has not been read.
  exec {tty}<> "$1"
  timeout $((60 * patience)) head -c "$2" <&"$tty" > "$state/received" &
  reader=$!
  cat "$state/sent" >&"$tty"
  wait "$reader" || fail "only $(stat -c %s "$state/received") of $2 bytes came back from $1"
  exec {tty}>&-
  cmp "$state/sent" "$state/received" || fail "other bytes came back from $1 than were sent"
}
