# The simulated microphone, recorded: isochronous IN without a sample missing.
limit=60
servers=usbferry

source "$vm/guest/microphone.sh"
scenario() {
  local busid
  simulate microphone
  busid=$(simulated_busid)
  attach "$busid"
  record "$attached"
  detach "$attached"
  stop_server
}
