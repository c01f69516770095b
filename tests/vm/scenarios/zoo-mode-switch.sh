# A modem disguised as a disc until its client ejects the disc: usb_modeswitch at the client does
# so. The device goes and comes back as another device; the new device is attached and works.
limit=240
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program usb_modeswitch rz sz
  modprobe cdc-acm
  head -c 1M /dev/urandom > "$state/disc.iso"
  make_gadget 0x0007
  add_function 1 mass_storage.0 lun.0/cdrom=1 lun.0/removable=1 "lun.0/file=$state/disc.iso"
  connect_gadget
  start_usbferry 3240 --device 1209:0007 --device 1209:0008
  attach "$gadget_busid"
  wait_for 30 "the driver of $attached" has_driver "$attached" usb-storage

  step "usb_modeswitch"
  usb_modeswitch -v 1209 -p 0007 -b "$((10#$(< "/sys/bus/usb/devices/$attached/busnum")))" \
    -g "$((10#$(< "/sys/bus/usb/devices/$attached/devnum")))" -K > "$state/modeswitch" 2>&1 ||
    fail "usb_modeswitch: $(tail -n 2 "$state/modeswitch")"
  wait_for 30 "the disc to be ejected" ejected
  become_modem
  wait_for 30 "$attached to go" device_gone "$attached"

  attach "$gadget_busid"
  [[ $(< "/sys/bus/usb/devices/$attached/idProduct") == 0008 ]] || fail "not the modem"
  wait_for 30 "the port of $attached" tty_of "$attached"
  zmodem "$(tty_of "$attached")" /dev/ttyGS0 20000
  detach "$attached"
  wait_for 30 "$gadget_busid to be released" released "$gadget_busid" cdc_acm
  stop_server
  remove_gadget
}

ejected() { [[ -z $(< "$gadget/functions/mass_storage.0/lun.0/file") ]]; }

# Does the work of a modem's firmware after the ejection.
become_modem() {
  step "become a modem"
  disconnect_gadget
  wait_for 15 "the gadget to go" device_gone "$gadget_busid"
  remove_functions
  echo 0x0008 > "$gadget/idProduct"
  add_function 1 acm.0
  connect_gadget
  wait_for 30 "the modem to be listed" listed "$gadget_busid"
}
