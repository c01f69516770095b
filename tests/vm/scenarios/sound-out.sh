# A ramp played on the sound card through USB/IP arrives complete: isochronous OUT, full speed.
limit=90

source "$vm/guest/sound.sh"

scenario() {
  local busid reference
  busid=$(local_device SOUND)
  make_ramp 96000

  step "play on the local card"
  play "$busid" local
  reference=("$from" "$to")

  serve "$busid"
  attach "$busid"
  must_not_have "$busid" snd-usb-audio
  wait_for 20 "the sound card of $attached" card_of "$attached"
  step "play through USB/IP"
  play "$attached" vhci

  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" snd-usb-audio
  stop_server
  compare_sound "${reference[@]}" "$from" "$to"
}
