# The scenario of the kernel's own USB test driver: the SourceSink gadget on dummy_hcd, exported,
# attached, and put through usbtest's cases on the vhci side. What has no isochronous or interrupt
# endpoint (dummy_hcd offers none to the gadget) leaves cases 15, 16, 22, 23, 25 and 26 out.

cases=0-14,17-21,24,27-29

usbtest() { # speed: high-speed or super-speed
  local busid failed=0
  plug_source_sink "$1"
  wait_for 20 "the gadget" gadget_there
  busid=$(local_device SOURCESINK)
  [[ $(drivers_of "$busid") == *" none" ]] || fail "a driver has the gadget: $(drivers_of "$busid")"

  serve "$busid"
  attach "$busid"
  # Loaded now, the driver takes the device on vhci; the gadget itself is in the server's hands.
  modprobe usbtest
  wait_for 20 "usbtest to take $attached" has_driver "$attached" usbtest
  must_not_have "$busid" usbtest
  python3 "$vm/guest/usbtest.py" "$attached" "$cases" "$channel" || failed=1
  ((!failed)) || fail "not all cases pass"

  rmmod usbtest
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" none
  stop_server
  unplug_source_sink
  wait_for 15 "the gadget to go" device_gone "$busid"
  rmmod dummy_hcd
}

gadget_there() { [[ -n $(local_device SOURCESINK) ]]; }

gadget=/sys/kernel/config/usb_gadget/source-sink
plug_source_sink() { # speed
  step "plug the gadget, $1"
  modprobe -a libcomposite usb_f_ss_lb
  modprobe dummy_hcd is_super_speed=1
  # After the modules: configfs shows what was there when it was mounted.
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  mkdir -p "$gadget"/{strings/0x409,configs/c.1/strings/0x409,functions/SourceSink.0}
  # Gadget zero's numbers, which usbtest's table has.
  echo 0x0525 > "$gadget/idVendor"
  echo 0xa4a0 > "$gadget/idProduct"
  echo "$1" > "$gadget/max_speed"
  echo SOURCESINK > "$gadget/strings/0x409/serialnumber"
  echo "source and sink" > "$gadget/strings/0x409/product"
  ln -s "$gadget/functions/SourceSink.0" "$gadget/configs/c.1/"
  ls /sys/class/udc > "$gadget/UDC"
}

unplug_source_sink() {
  step "unplug the gadget"
  echo > "$gadget/UDC"
  rm "$gadget/configs/c.1/SourceSink.0"
  rmdir "$gadget"/{configs/c.1/strings/0x409,configs/c.1,functions/SourceSink.0,strings/0x409} \
    "$gadget"
}
