# A UAC1 speaker with bInterval 4 on its isochronous endpoint, like the kernel's UAC1 gadget. At
# high speed the client's driver and usbfs agree on the interval. At full speed snd-usb-audio wants
# a packet in each frame, but usbfs takes no interval from a program and moves a packet in every
# eighth frame. All of the sound arrives, in eight times the time, and the log gives the reason.
limit=180
servers=usbferry
zoo=yes

source "$vm/guest/program.sh"

scenario() {
  head -c 192000 /dev/urandom > "$state/sound.raw"

  speaker full
  play_on "$program_busid" 1
  over_usbferry 8
  grep -q "each 1 (micro)frames, .* one each 8," "$log/$name.server.log" ||
    fail "the log does not say that the intervals differ"
  unplug_program

  speaker high
  : > "$log/$name.server.log"
  over_usbferry 8
  ! grep -q '(micro)frames' "$log/$name.server.log" || fail "the log says that intervals differ"
  unplug_program
}

speaker() { # speed
  plug_program speaker "$1" "$state/heard"
  wait_for 20 "the sound card of $program_busid" card_of "$program_busid"
}

over_usbferry() { # interval
  serve "$program_busid"
  wait_for 20 "usbip list -r to show $program_busid" offered "$program_busid"
  attach "$program_busid"
  wait_for 20 "the sound card of $attached" card_of "$attached"
  play_on "$attached" "$1"
  detach "$attached"
  wait_for 15 "$program_busid to be released" released "$program_busid" snd-usb-audio
  stop_server
}

# Plays, and checks the sound heard by the speaker and the interval of the SUBMITs.
play_on() { # device, interval
  rm -f "$state/heard.intervals"
  : > "$state/heard"
  step "play on $1"
  # With 40 periods a stream may be 40 times too slow before aplay gives up.
  aplay -D "hw:$(card_of "$1"),0" --buffer-time=2000000 --period-time=50000 \
    -t raw -f S16_LE -r 48000 -c 2 "$state/sound.raw" > "$state/aplay" 2>&1 ||
    fail "aplay on $1: $(tail -n 1 "$state/aplay")"
  [[ $(< "$state/heard.intervals") == "$2" ]] ||
    fail "SUBMITs with an interval of $(xargs < "$state/heard.intervals"), not $2"
  python3 -c 'import sys; sent, heard = (open(name, "rb").read() for name in sys.argv[1:]); sys.exit(sent not in heard)' \
    "$state/sound.raw" "$state/heard" || fail "other sound arrived than was played on $1"
  note "$1 at $(< "/sys/bus/usb/devices/$1/speed") Mbit/s: all of the sound, a packet each $2"
}
