# A FIDO key: libfido2's fido2-token queries the key over hidraw. Interrupt endpoints both ways, a
# message of several reports, and a driver of the kernel between.
limit=120
zoo=yes

source "$vm/guest/zoo.sh"

# The report descriptor of the CTAP specification: 64 bytes each way.
key='\x06\xd0\xf1\x09\x01\xa1\x01\x09\x20\x15\x00\x26\xff\x00\x75\x08\x95\x40\x81\x02\x09\x21\x15\x00\x26\xff\x00\x75\x08\x95\x40\x91\x02\xc0'

scenario() {
  local firmware
  need_program fido2-token
  make_gadget 0x0009
  add_function 1 hid.0 report_length=64 "report_desc=$key"
  connect_gadget
  wait_for 30 "the local driver" has_driver "$gadget_busid" usbhid
  start firmware python3 "$vm/guest/fido.py" /dev/hidg0
  firmware=$started
  wait_until_said 30 firmware listening
  attach_and_release "$gadget_busid" usbhid judge
  kill -KILL "$firmware"
  wait "$firmware" 2> /dev/null || true
  remove_gadget
}

judge() {
  local turn
  wait_for 30 "the hidraw node of $attached" node_of "$attached" hidraw
  for turn in 1 2 3; do
    fido2-token -I "$(node_of "$attached" hidraw)" > "$state/token" 2>&1 ||
      fail "fido2-token: $(tail -n 1 "$state/token")"
  done
  grep -q '^version strings: FIDO_2_0, .*VERSION_11' "$state/token" || fail "it says: $(< "$state/token")"
  note "fido2-token -I, three times: $(grep '^aaguid' "$state/token")"
}
