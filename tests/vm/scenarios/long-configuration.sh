# Configuration descriptors of more than 4,096 bytes, libusb's limit for a control transfer: the
# client reads the whole descriptor, and the last interface in the descriptor works.
limit=180
zoo=yes

source "$vm/guest/program.sh"

scenario() {
  local bytes device
  load_usbserial 0002
  for bytes in 4097 6000; do
    plug_program long "$bytes"
    device=$program_busid
    wait_for 30 "the port of $device" tty_of "$device"
    cp "/sys/bus/usb/devices/$device/descriptors" "$state/descriptors"
    (($(stat -c %s "$state/descriptors") == 18 + bytes)) || fail "$device itself has no $bytes bytes"

    serve "$device"
    wait_for 20 "usbip list -r to show $device" offered "$device"
    attach "$device"
    cmp "$state/descriptors" "/sys/bus/usb/devices/$attached/descriptors" ||
      fail "the client has other descriptors than the host"
    lsusb -v -s "$(address_of "$attached")" > "$state/lsusb" 2> /dev/null
    (($(grep -c bAlternateSetting "$state/lsusb") == 61)) || fail "lsusb shows other alternate settings"
    wait_for 30 "the port of $attached" tty_of "$attached"
    loop_through "$(tty_of "$attached")" 10000
    note "$bytes bytes: descriptors as on the host, 10,000 bytes there and back"
    detach "$attached"
    wait_for 15 "$device to be released" released "$device" usbserial_generic
    stop_server
    unplug_program
  done
}
