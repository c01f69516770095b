# A MIDI gadget: system exclusive messages by amidi in both directions, and notes for aseqdump.
# Messages are a few bytes long and go by bulk endpoints; the IN endpoint always has URBs pending.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program amidi aseqdump
  modprobe -a snd-seq snd-seq-midi
  make_gadget 0x000b
  add_function 1 midi.0 in_ports=1 out_ports=1
  connect_gadget
  wait_for 30 "the local driver" has_driver "$gadget_busid" snd-usb-audio
  talk "$gadget_busid" "without USB/IP"
  attach_and_release "$gadget_busid" snd-usb-audio judge
  remove_gadget
}
judge() { talk "$attached" "through $server"; }

talk() { # device, how
  local here there turn
  wait_for 30 "the card of $1" card_of "$1"
  here=$(card_of "$1")
  there=$(echo /sys/devices/platform/dummy_udc.0/gadget*/sound/card*/midi*)
  there=${there##*/card}
  there=${there%%/*}
  # Less than ALSA's buffer for a late reader, 4,096 bytes.
  { printf '\xf0' && head -c 3000 /dev/urandom | tr '\200-\377' '\0-\177' && printf '\xf7'; } \
    > "$state/exclusive"
  for turn in 1 2 3; do
    exclusive "$here" "$there"
    exclusive "$there" "$here"
  done
  notes "$here" "$there"
  notes "$there" "$here"
  note "$2: three times 3,002 bytes each way by amidi, 20 notes each way at aseqdump"
}

exclusive() { # from card, to card
  local reader
  step "amidi from card $1 to card $2"
  rm -f "$state/heard"
  start reader amidi -p "hw:$2,0" -r "$state/heard"
  reader=$started
  wait_for 20 "amidi to read" polls "$reader"
  amidi -p "hw:$1,0" -s "$state/exclusive"
  wait_for 30 "3,002 bytes at card $2" has_size "$state/heard" 3002
  kill -INT "$reader"
  wait "$reader" || true
  cmp "$state/exclusive" "$state/heard" || fail "card $2 heard other bytes than card $1 sent"
}

notes() { # from card, to card
  local reader key
  step "aseqdump of card $2"
  start dump aseqdump -p "$(sequencer_client "$2"):0"
  reader=$started
  wait_for 20 "aseqdump to read" polls "$reader"
  for ((key = 60; key < 80; key++)); do
    printf '\x90\x'"$(printf %x "$key")"'\x40'
  done > "$state/notes"
  amidi -p "hw:$1,0" -s "$state/notes"
  wait_for 30 "the notes at card $2" heard_notes
  kill "$reader"
  wait "$reader" 2> /dev/null || true
  [[ $(sed -n 's/.*Note on .*note \([0-9]*\), velocity 64$/\1/p' "$state/dump" | xargs) == \
    "$(seq -s ' ' 60 79)" ]] || fail "aseqdump of card $2: $(tail -n 3 "$state/dump" | xargs)"
}
heard_notes() { (($(grep -c 'Note on' "$state/dump") >= 20)); }

# As the sequencer names a card.
sequencer_client() { # card
  aconnect -l | sed -n "s/^client \([0-9]*\): .*card=$1.*/\1/p"
}

# Whether a program waits in poll(), and so has opened all its inputs.
polls() { [[ $(< "/proc/$1/syscall") == 7\ * ]]; } # process
has_size() { (($(stat -c %s "$1" 2> /dev/null || echo 0) >= $2)); } # file, bytes
