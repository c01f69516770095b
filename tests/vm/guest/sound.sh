# Sound played on QEMU's card, which records it in a wav. Sourced by the scenarios that compare what
# it records with and without USB/IP: after its mixer, so a ramp is first played on the local card.

recording=$run/sound.wav

make_ramp() { # frames
  python3 "$vm/guest/ramp.py" make "$state/ramp.wav" "$1"
}

# Bytes recorded until now.
recorded() { stat -c %s "$recording" 2> /dev/null || echo 0; }

play() { # device
  local said
  said=$(aplay -D "hw:$(card_of "$1"),0" --buffer-time=500000 "$state/ramp.wav" 2>&1)
  echo "$said"
  [[ $said != *underrun* ]] || fail "aplay was too slow for the card (underrun): the machine is busy"
}

# Whether what was recorded from the second to the third place is what was recorded before it.
compare_sound() { # start, middle, end
  python3 "$vm/guest/ramp.py" compare "$recording" "$@" > "$state/compared" 2>&1 ||
    fail "$(< "$state/compared")"
  note "$(< "$state/compared")"
}
