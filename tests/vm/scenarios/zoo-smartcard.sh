# A smartcard reader with a card: pcscd, a libusb program, opens it at the client, and opensc-tool
# talks to the card. Bulk both ways and an interrupt endpoint, by usbfs on both sides.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program pcscd opensc-tool certutil
  make_card
  plug_hub
  plug "device_add usb-ccid,bus=xhci.0,port=4.1,id=ccid" \
    "device_add ccid-card-emulated,bus=ccid.0,id=card,backend=certificates,db=sql:$host_run/card,cert1=card1,cert2=card2,cert3=card3"
  # No driver of the kernel has the reader.
  attach_and_release "$plugged" none judge
  unplug "$plugged" ccid
  unplug_hub
}

# Makes the certificates of QEMU's card.
make_card() {
  local number
  step "make the card"
  rm -rf "$run/card"
  mkdir -p "$run/card"
  head -c 1K /dev/urandom > "$state/noise"
  certutil -N -d "sql:$run/card" --empty-password
  for number in 1 2 3; do
    certutil -S -d "sql:$run/card" -x -s "CN=card$number" -n "card$number" -t TCu,TCu,TCu -g 1024 \
      -m "$number" -z "$state/noise"
  done
}

judge() {
  local pcscd
  step "pcscd"
  mkdir -p /run/pcscd
  start pcscd pcscd --foreground
  pcscd=$started
  wait_for 60 "pcscd to see the card" card_seen
  opensc-tool --reader 0 --atr > "$state/atr" 2>&1 || fail "opensc-tool: $(tail -n 1 "$state/atr")"
  # SELECT of the card manager: any answer of the card will do.
  opensc-tool --reader 0 --send-apdu 00:A4:04:00:07:A0:00:00:00:79:01:00 > "$state/apdu" 2>&1 || true
  grep -q 'SW1=0x90' "$state/apdu" || fail "the card did not answer: $(tail -n 2 "$state/apdu")"
  note "$(head -n 1 "$state/atr"); $(grep -o 'SW1=.*' "$state/apdu")"
  kill "$pcscd"
  wait "$pcscd" 2> /dev/null || true
}
card_seen() { opensc-tool --list-readers 2> /dev/null | grep -qE '^0 +Yes'; }
