# Two gadgets alike, except for the port and the serial number: VID:PID is refused with both named in
# the log, and the port, the serial number and a nickname each find the right gadget.
limit=180
servers=usbferry

source "$vm/guest/rules.sh"

gadgets=/sys/kernel/config/usb_gadget

scenario() {
  local number busids=()
  step "plug two gadgets"
  modprobe -a libcomposite usb_f_ss_lb
  modprobe dummy_hcd num=2
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  for number in 0 1; do plug "$number"; done
  wait_for 20 "both gadgets" both_there
  for number in 0 1; do busids+=("$(local_device "TWIN$number")"); done

  write_rules << RULES
[[rule]]
busid = "${busids[1]}"
name = "second"

[[rule]]
id = "0525:a4a0"
RULES
  serve_rules
  [[ $(usbip_py 127.0.0.1 import 0525:a4a0) == 4 ]] || fail "0525:a4a0 is not refused by ST_NODEV"
  grep -qF "several devices fit: ${busids[0]} (0525:a4a0, serial TWIN0), ${busids[1]} (" \
    "$log/$name.server.log" || fail "the log does not name both gadgets"
  finds "${busids[0]}" 0
  finds "${busids[1]}" 1
  finds second 1
  finds serial:TWIN0 0
  finds 0525:a4a0:TWIN1 1

  step "unplug the second"
  echo > "$gadgets/twin1/UDC"
  wait_for 10 "it to go" device_gone "${busids[1]}"
  finds 0525:a4a0 0
  [[ $(usbip_py 127.0.0.1 import second) == 4 ]] || fail "the second is still there"

  stop_server
  step "unplug them"
  for number in 0 1; do unplug "$number"; done
  rmmod dummy_hcd
}

# Attaches by a name, and looks at the serial number.
finds() { # name, number of the gadget
  attach "$1"
  [[ $(serial_of "$attached") == "TWIN$2" ]] || fail "$1 is $(serial_of "$attached")"
  detach "$attached"
}

plug() { # number
  local gadget=$gadgets/twin$1
  mkdir -p "$gadget"/{strings/0x409,configs/c.1/strings/0x409} "$gadget/functions/SourceSink.0"
  echo 0x0525 > "$gadget/idVendor"
  echo 0xa4a0 > "$gadget/idProduct"
  echo high-speed > "$gadget/max_speed"
  echo "TWIN$1" > "$gadget/strings/0x409/serialnumber"
  ln -s "$gadget/functions/SourceSink.0" "$gadget/configs/c.1/"
  echo "dummy_udc.$1" > "$gadget/UDC"
}

unplug() { # number
  local gadget=$gadgets/twin$1
  [[ -z $(< "$gadget/UDC") ]] || echo > "$gadget/UDC"
  rm "$gadget/configs/c.1/SourceSink.0"
  rmdir "$gadget"/{configs/c.1/strings/0x409,configs/c.1,strings/0x409} \
    "$gadget/functions/SourceSink.0" "$gadget"
}

both_there() {
  [[ -n $(local_device TWIN0) && -n $(local_device TWIN1) ]]
}
