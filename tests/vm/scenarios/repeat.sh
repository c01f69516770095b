# Ten rounds of list, attach, port, detach: the exporter and the device are as good as new after
# each, and the local driver has the device back.
limit=300

scenario() {
  local busid round sum disk first=
  busid=$(local_device STICKXHCI)
  serve "$busid"
  for round in {1..10}; do
    step "round $round"
    [[ $(remote_busids) == "$busid" ]] || fail "round $round: usbip list -r does not show $busid"
    attach "$busid"
    must_not_have "$busid" usb-storage
    [[ -n $(port_of "$attached") ]] || fail "round $round: usbip port does not show $attached"
    wait_for 30 "the disk of $attached" block_device_of "$attached"
    disk=$(block_device_of "$attached")
    sum=$(dd if="$disk" bs=64K count=8 iflag=direct status=none | sha256sum)
    [[ $sum == "${first:=$sum}" ]] || fail "round $round: other data than in round 1"
    detach "$attached"
    [[ -z $(port_of "$attached") ]] || fail "round $round: usbip port still shows $attached"
    wait_for 15 "round $round: $busid to be released" released "$busid" usb-storage
  done
  stop_server
  wait_for 15 "the local driver" has_driver "$busid" usb-storage
}
