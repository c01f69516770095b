# A gadget of two interfaces, one held by another program. The gadget can be imported; the held
# interface is refused, while the other interface and control transfers work. The log and the list
# name the held interface. For vhci the gadget is an ordinary device. After the end of the program
# the whole gadget works.
limit=120
servers=usbferry

source "$vm/guest/gadget.sh"

scenario() {
  local holder
  plug_gadget high-speed SourceSink Loopback
  serve "$gadget_busid"
  step "hold interface 1"
  start holder python3 "$vm/guest/usbfs.py" claim "$gadget_busid" 1
  holder=$started
  wait_until_said 20 holder holding

  step "import with interface 1 held"
  import_with_held 1
  note "$(< "$state/held")"
  grep -q "$gadget_busid: interface 1 .*claimed" "$log/$name.server.log" ||
    fail "the log does not say that interface 1 is held"
  note "$(grep "$gadget_busid: interface 1 .*claimed" "$log/$name.server.log" | tail -n 1)"
  # The interfaces of the device on vhci are as many; interface 0 is a SourceSink there too.
  attach "$gadget_busid"
  [[ -e /sys/bus/usb/devices/$attached/$attached:1.1 ]] || fail "$attached has no interface 1"
  load_usbtest "$attached"
  python3 "$vm/guest/usbtest.py" "$attached" 0-2 "$channel" || fail "not all cases pass"
  rmmod usbtest
  detach "$attached"
  "$usbferry" list > "$state/list" 2>&1
  grep "$gadget_busid" -A 3 "$state/list" | grep -q 'interface 1' ||
    fail "the list does not say that interface 1 is held: $(grep "$gadget_busid" "$state/list")"
  kill -0 "$holder" || fail "the other program lost its interface"

  step "import with nothing held"
  kill -KILL "$holder"
  wait "$holder" 2> /dev/null || true
  wait_for 10 "$gadget_busid to be free" listed "$gadget_busid"
  import_with_held -1
  stop_server
  unplug_gadget
}

import_with_held() { # interface
  python3 "$vm/guest/held.py" 127.0.0.1 "$gadget_busid" "$1" > "$state/held" 2>&1 ||
    fail "$(tail -n 1 "$state/held")"
}
