# Recording from usbferry's simulated microphone: each sample is its predecessor plus 1, so a
# recording shows every missing, doubled or misplaced sample. Time does not matter here: buffer and
# period are those of sound.sh, since ALSA gives a read up (EIO) if no period ends within 1.1 times
# the buffer's length.

seconds=5

record() { # device
  local said samples=$((48000 * seconds))
  wait_for 20 "the sound card of $1" card_of "$1"
  step "record $seconds s from $1"
  rm -f "$state/recording.wav"
  said=$(arecord -D "hw:$(card_of "$1"),0" -f S16_LE -r 48000 -c 1 -s $samples \
    --buffer-time=5000000 --period-time=50000 "$state/recording.wav" 2>&1) || fail "arecord: $said"
  echo "$said"
  [[ $said != *overrun* ]] || fail "arecord was too slow (overrun): the machine is busy"
  python3 "$vm/guest/ramp.py" check "$state/recording.wav" $samples > "$state/checked" 2>&1 ||
    fail "$(< "$state/checked")"
  note "$1: $(< "$state/checked")"
}
