# Sound played on QEMU's card, which records a wav. Sourced by the scenarios that compare recordings
# with and without USB/IP. The recording is behind the mixer, so a ramp is first played on the local
# card.

recording=$run/sound.wav

make_ramp() { # frames
  python3 "$vm/guest/ramp.py" make "$state/ramp.wav" "$1"
}

# Bytes recorded until now.
recorded() { stat -c %s "$recording" 2> /dev/null || echo 0; }

# Plays the ramp; $from and $to then have its place in the recording. A failure of the local card,
# or an underrun of a slow aplay, is the machine's doing: tried again.
#
# ALSA gives a write up (EIO) if no period ends within 1.1 times the buffer's length. With half a
# second in four periods, a machine at a quarter of real time fails. Time does not matter here, so
# the buffer is as long as the driver allows, and a period as short as reasonable.
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

# Whether the recording from the third to the fourth place equals the first to the second.
compare_sound() { # from, to, from, to
  python3 "$vm/guest/ramp.py" compare "$recording" "$@" > "$state/compared" 2>&1 ||
    fail "$(< "$state/compared")"
  note "$(< "$state/compared")"
}
