# A gadget of two configurations, an NCM network and a serial port: the client changes the
# configuration and back, and the functions of each work every time.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program rz sz
  modprobe -a cdc-acm cdc_ncm
  make_gadget 0x0006
  add_function 1 ncm.0
  add_function 2 acm.0
  connect_gadget
  wait_for 30 "the local driver" has_driver "$gadget_busid" cdc_ncm
  attach_and_release "$gadget_busid" cdc_ncm judge
  remove_gadget
}

judge() {
  local configuration=/sys/bus/usb/devices/$attached/bConfigurationValue
  gadget_network ncm.0
  step "configuration 2"
  echo 2 > "$configuration"
  wait_for 30 "the port of $attached" tty_of "$attached"
  zmodem "$(tty_of "$attached")" /dev/ttyGS0 20000
  zmodem /dev/ttyGS0 "$(tty_of "$attached")" 20000
  step "configuration 1"
  echo 1 > "$configuration"
  gadget_network ncm.0
}
