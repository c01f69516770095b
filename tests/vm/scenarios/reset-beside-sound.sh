# One client resets a stick again and again while another client plays sound: every frame arrives,
# and the stick works afterwards.
limit=180
servers=usbferry

source "$vm/guest/sound.sh"
source "$vm/guest/stick.sh"

scenario() {
  local sound stick reference resets
  sound=$(local_device SOUND)
  stick=$(local_device STICKEHCI)
  make_ramp 240000
  step "play on the local card"
  play "$sound" local
  reference=("$from" "$to")

  serve "$sound" "$stick"
  attach "$sound"
  wait_for 20 "the sound card of $attached" card_of "$attached"
  rm -f "$state/enough"
  start resets python3 "$vm/guest/resets.py" 127.0.0.1 "$stick" "$state/enough"
  resets=$started
  wait_until_said 20 resets running
  step "play while the stick is reset"
  play "$attached" vhci
  touch "$state/enough"
  wait "$resets" || fail "$(tail -n 1 "$state/resets")"
  note "$(tail -n 1 "$state/resets") while it played"
  compare_sound "${reference[@]}" "$from" "$to"

  detach "$attached"
  wait_for 15 "$sound to be released" released "$sound" snd-usb-audio
  wait_for 15 "$stick to be released" released "$stick" usb-storage
  stop_server
  wait_for 20 "the local disk" block_device_of "$stick"
  read_direct "$(block_device_of "$stick")" "$state/read.img" 0 2
  cmp "$state/read.img" <(head -c 2M "$run/stick-ehci.img") || fail "other data than on the stick"
}
