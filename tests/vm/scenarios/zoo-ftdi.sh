# An FTDI serial port: a vendor's driver, with the status in each packet. Files go by ZMODEM to a
# local port and back; modem lines, speeds and a break are control transfers of the vendor.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program rz sz
  modprobe ftdi_sio
  plug_hub
  plug "chardev-add socket,id=near,path=$host_run/wire,server=on,wait=off" \
    "device_add usb-serial,bus=xhci.0,port=4.1,id=serial-near,chardev=near,always-plugged=on"
  near=$plugged
  plug "chardev-add socket,id=far,path=$host_run/wire" \
    "device_add usb-serial,bus=xhci.0,port=4.2,id=serial-far,chardev=far,always-plugged=on"
  far=$plugged
  wait_for 30 "the local drivers" drivers_there
  attach_and_release "$far" ftdi_sio judge
  unplug "$far" serial-far
  unplug "$near" serial-near
  monitor "chardev-remove far"
  monitor "chardev-remove near"
  unplug_hub
}
drivers_there() { has_driver "$near" ftdi_sio && has_driver "$far" ftdi_sio; }

judge() {
  local here there
  wait_for 30 "the port of $attached" tty_of "$attached"
  here=$(tty_of "$attached") there=$(tty_of "$near")
  step "modem lines of $here"
  python3 "$vm/guest/modem.py" "$here" > "$state/modem" 2>&1 || fail "$(tail -n 1 "$state/modem")"
  note "$(< "$state/modem")"
  zmodem "$here" "$there" 20000
  zmodem "$there" "$here" 20000
}
