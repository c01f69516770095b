# `usbferry attach`, `port` and `detach` beside the stock tool: each shows and detaches what the other
# has attached, at high and at super speed, and the data is right. A user who is not root learns so
# before the server hears anything.
limit=240

source "$vm/guest/client.sh"

scenario() {
  there_and_back stick-ehci "$(local_device STICKEHCI)"
  there_and_back stick-xhci "$(local_device STICKXHCI)"
}

there_and_back() { # image, busid
  local image=$1 busid=$2 port shown
  serve "$busid"
  as_nobody "$busid"

  ferry_attach "$busid"
  has_data "$image"
  must_not_have "$busid" usb-storage
  # Both list the device in the same words.
  usbip_tool port > "$state/stock" 2> /dev/null
  "$usbferry" port > "$state/ours"
  grep -qF "usbip://127.0.0.1:3240/$busid" "$state/stock" || fail "usbip port: $(< "$state/stock")"
  shown=$(grep -vF " : " "$state/stock")
  [[ $(grep -vF " : " "$state/ours") == "$shown" ]] ||
    fail "usbip port: $(< "$state/stock"); usbferry port: $(< "$state/ours")"
  note "$(head -3 "$state/ours" | tail -1), $(tail -2 "$state/ours" | head -1 | xargs)"
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" usb-storage

  attach "$busid"
  port=$(port_of "$attached")
  "$usbferry" port --json > "$state/json"
  python3 -c 'import json, sys
ports = json.load(open(sys.argv[1]))["ports"]
assert [(p["name"], p["port"], p["local"]["busid"]) for p in ports] == [
    (sys.argv[2], int(sys.argv[3]), sys.argv[4])], ports' \
    "$state/json" "$busid" "$port" "$attached" || fail "usbferry port --json: $(< "$state/json")"
  step "usbferry detach $busid"
  "$usbferry" detach "$busid" 2>> "$log/$name.client.log"
  wait_for 20 "$attached to go away" device_gone "$attached"
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  ! "$usbferry" detach -p "$port" 2> "$state/again" || fail "a free port was detached"
  grep -q "nothing is attached to port $port" "$state/again" || fail "$(< "$state/again")"
  stop_server
}

as_nobody() { # busid
  ! setpriv --reuid 65534 --clear-groups "$usbferry" attach 127.0.0.1 "$1" 2> "$state/nobody" ||
    fail "a user without rights has attached $1"
  grep -q sudo "$state/nobody" || fail "a user without rights is told: $(< "$state/nobody")"
}

has_data() { # image
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  dd if="$(block_device_of "$attached")" bs=1M count=2 iflag=direct status=none |
    cmp - <(head -c 2M "$run/$1.img") || fail "other data than in $1"
}
