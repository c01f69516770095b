# Isochronous IN through usbfs. The simulated microphone, attached through vhci, is an ordinary
# device to libusb: a second usbferry exports the microphone again, and a client of that server
# records.
limit=90
servers=usbferry

source "$vm/guest/microphone.sh"
scenario() {
  local busid first second
  simulate microphone
  busid=$(simulated_busid)
  attach_elsewhere "$busid"
  first=$attached
  wait_for 20 "the local driver" driver_on "$first" snd-usb-audio

  start_usbferry 3241 --listen 127.0.0.1:3241 --device "$first"
  [[ $(remote_busids 3241) == "$first" ]] || fail "usbip list -r does not show $first on port 3241"
  attach "$first" 3241
  second=$attached
  must_not_have "$first" snd-usb-audio
  record "$second"

  detach "$second"
  wait_for 15 "$first to be released" released "$first" snd-usb-audio
  stop_server 3241
  detach "$first"
  stop_server 3240
}
