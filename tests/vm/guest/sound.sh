# Sound played on QEMU's card, which records it in a wav. Sourced by the scenarios that compare what
# it records with and without USB/IP: after its mixer, so a ramp is first played on the local card.

recording=$run/sound.wav

make_ramp() { # frames
  python3 "$vm/guest/ramp.py" make "$state/ramp.wav" "$1"
}

# Bytes recorded until now.
recorded() { stat -c %s "$recording" 2> /dev/null || echo 0; }

# Plays the ramp; where it lies in the recording is in $from and $to then. What goes wrong on the card
# without USB/IP, or because aplay itself is too slow (underrun), is the machine's doing: tried again.
#
# ALSA gives a write up (EIO) if none of its periods ends within 1.1 times the buffer's length: with half a
# second in four periods, a machine that does a quarter of real time fails. Nothing here is about time, so
# the buffer is as long as the driver has it, and a period as short as is reasonable.
play() { # device, local or vhci
  local try said
  for try in 1 2 3; do
    from=$(recorded)
    if said=$(aplay -D "hw:$(card_of "$1"),0" --buffer-time=5000000 --period-time=50000 \
      "$state/ramp.wav" 2>&1); then
      to=$(recorded)
      [[ $said == *underrun* ]] || return 0
    elif [[ $2 == vhci ]]; then
      break
    fi
    note "try $try on the $2 card failed: ${said##*$'\n'}"
  done
  fail "aplay on the $2 card: ${said##*$'\n'}"
}

# Whether what was recorded from the third place to the fourth is what was from the first to the second.
compare_sound() { # from, to, from, to
  python3 "$vm/guest/ramp.py" compare "$recording" "$@" > "$state/compared" 2>&1 ||
    fail "$(< "$state/compared")"
  note "$(< "$state/compared")"
}
