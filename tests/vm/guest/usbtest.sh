# The scenario of the kernel's own USB test driver: the SourceSink gadget on dummy_hcd, exported,
# attached, and put through usbtest's cases on the vhci side. dummy_hcd offers the gadget no
# isochronous and no interrupt endpoint, so cases 15, 16, 22, 23, 25 and 26 are left out.

cases=0-14,17-21,24,27-29

source "$vm/guest/gadget.sh"

usbtest() { # speed: high-speed or super-speed
  local busid
  plug_gadget "$1" SourceSink
  busid=$gadget_busid
  [[ $(drivers_of "$busid") == *" none" ]] || fail "a driver has the gadget: $(drivers_of "$busid")"

  serve "$busid"
  attach "$busid"
  load_usbtest "$attached"
  must_not_have "$busid" usbtest
  python3 "$vm/guest/usbtest.py" "$attached" "$cases" "$channel" || fail "not all cases pass"
  rmmod usbtest
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" none
  stop_server
  unplug_gadget
}
