# The comparison of usbipd-ratio.sh for streams: queued bulk transfers of the kernel's usbtest
# driver on a gadget, each way, and isochronous sound. Through usbferry and the kernel's own
# exporter in turns within one boot. dummy_hcd and the sound card have a speed of their own, the
# speed of any server that keeps up; then only the processor time differs.
limit=500
measures=yes
servers=usbferry

rounds=5

# Bytes of usbtest's cases 27 and 28: 50 times 32 URBs of 16 KiB.
bulk_bytes=$((50 * 32 * 16384))
# Two seconds of the card's sound, two channels of two bytes.
sound_frames=96000

source "$vm/guest/gadget.sh"
source "$vm/guest/sound.sh"
source "$vm/guest/ratio.sh"

scenario() {
  local card reference round which
  plug_gadget high-speed SourceSink
  card=$(local_device SOUND)
  make_ramp "$sound_frames"
  step "play on the local card"
  play "$card" local
  reference=("$from" "$to")
  : > "$state/times"
  for ((round = 1; round <= rounds; round++)); do
    # Neither is always the first.
    if ((round % 2)); then which='usbferry usbipd'; else which='usbipd usbferry'; fi
    for server in $which; do
      serve "$gadget_busid" "$card"
      bulk
      sound
      stop_server
      wait_for 20 "the local driver" has_driver "$card" snd-usb-audio
    done
  done
  server=usbferry
  unplug_gadget
  ratios "$rounds"
}

bulk() {
  attach "$gadget_busid"
  load_usbtest "$attached"
  step "round $round: the gadget through $server"
  timed "$server" gadget 'bulk OUT 16 KiB' "$bulk_bytes" usbtest_case 27
  timed "$server" gadget 'bulk IN 16 KiB' "$bulk_bytes" usbtest_case 28
  rmmod usbtest
  detach "$attached"
  wait_for 15 "$gadget_busid to be released" released "$gadget_busid" none
}

usbtest_case() { # number
  python3 "$vm/guest/usbtest.py" "$attached" "$1" "$channel" > "$state/usbtest" ||
    fail "case $1 through $server: $(tail -n 1 "$state/usbtest")"
}

sound() {
  attach "$card"
  wait_for 20 "the sound card of $attached" card_of "$attached"
  step "round $round: sound through $server"
  timed "$server" 'sound card' 'isochronous OUT' $((4 * sound_frames)) play "$attached" vhci
  detach "$attached"
  wait_for 15 "$card to be released" released "$card" snd-usb-audio
  compare_sound "${reference[@]}" "$from" "$to"
}
