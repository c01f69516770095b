# SIGHUP while a stick is read over USB/IP, again and again: other rules are followed at once, a file
# with a mistake is refused with its place, and every byte read is right. Rules without the stick end
# the session, and nothing is stuck.
limit=240
servers=usbferry

source "$vm/guest/stick.sh"
source "$vm/guest/rules.sh"

scenario() {
  local stick keyboard disk expected turn reader
  stick=$(local_device STICKEHCI)
  keyboard=$(local_device KEYBOARD)
  expected=$(checksum "$run/stick-ehci.img")
  rules_with stick
  serve_rules
  attach disk
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")

  start reader read_again_and_again "$disk"
  reader=$started
  for turn in 1 2 3 4 5; do
    step "reload $turn"
    rules_with stick keyboard
    reload_rules "$reloaded"
    offered "$keyboard" || fail "the new rules are not followed"
    rules_with stick
    reload_rules "$reloaded"
    ! offered "$keyboard" || fail "the old rules are still followed"
    rules_with stick keyboard
    echo 'nmae = "typo"' >> "$rules"
    reload_rules "$rules:"
    ! offered "$keyboard" || fail "a wrong file was followed"
  done
  grep -F "$rules:" "$log/$name.server.log" | tail -n 1 > "$state/complaint"
  grep -qE ":[0-9]+:[0-9]+" "$state/complaint" || fail "no line and column: $(< "$state/complaint")"
  touch "$state/enough"
  wait "$reader" || fail "the reader failed: $(tail -n 1 "$state/reader")"
  note "$(wc -l < "$state/sums") times the whole disk while the rules were read 15 times"
  [[ $(sort -u "$state/sums") == "$expected" ]] || fail "other data than on the stick"

  step "rules without the stick"
  rules_with keyboard
  reload_rules "$reloaded"
  wait_for 20 "$attached to go" device_gone "$attached"
  wait_for 15 "$stick to be released" released "$stick" usb-storage
  [[ $(remote_busids) == "$keyboard" ]] || fail "listed now: $(remote_busids)"
  stop_server
}

# A part of the server's line about new rules.
reloaded='the settings were read again'

rules_with() { # device...
  local device
  : > "$rules.new"
  for device in "$@"; do
    case $device in
      stick) printf '[[rule]]\nbusid = "%s"\nname = "disk"\n' "$stick" ;;
      keyboard) printf '[[rule]]\nbusid = "%s"\n' "$keyboard" ;;
    esac >> "$rules.new"
  done
  mv "$rules.new" "$rules"
}

# Notes the checksum of the whole disk each time.
read_again_and_again() { # disk
  rm -f "$state/enough" "$state/sums"
  until [[ -e $state/enough ]]; do
    dd if="$1" bs=1M iflag=direct status=none | sha256sum | cut -d' ' -f1 >> "$state/sums"
  done
}
