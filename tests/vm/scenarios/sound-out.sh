# A ramp played on the sound card through USB/IP arrives complete: isochronous OUT, full speed.
# QEMU records what its card plays, after its mixer, so the same ramp is first played on the local
# card, and both recordings must be the same.
limit=90

scenario() {
  local busid recording=$run/sound.wav start middle end
  busid=$(local_device SOUND)
  python3 "$vm/guest/ramp.py" make "$state/ramp.wav" 96000

  step "play on the local card"
  start=$(recorded)
  play "$busid"
  middle=$(recorded)

  serve "$busid"
  attach "$busid"
  must_not_have "$busid" snd-usb-audio
  wait_for 20 "the sound card of $attached" card_of "$attached"
  step "play through USB/IP"
  play "$attached"
  end=$(recorded)

  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" snd-usb-audio
  stop_server
  python3 "$vm/guest/ramp.py" compare "$recording" "$start" "$middle" "$end" \
    > "$state/compared" 2>&1 || fail "$(< "$state/compared")"
  note "$(< "$state/compared")"
}

recorded() { stat -c %s "$recording" 2> /dev/null || echo 0; }

play() { # device
  local said
  said=$(aplay -D "hw:$(card_of "$1"),0" --buffer-time=500000 "$state/ramp.wav" 2>&1)
  echo "$said"
  [[ $said != *underrun* ]] || fail "aplay was too slow for the card (underrun): the machine is busy"
}
