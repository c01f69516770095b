# Records which speeds on the wire are accepted by this usbip tool and this kernel's vhci, and the
# resulting speed of the device. See docs/kernels.md. Up to 4 the device is a high-speed device,
# from 5 on a super-speed device; its packet sizes fit these speeds, and do not fit low speed.
limit=300
measures=yes
servers=usbferry

source "$vm/guest/recorder.sh"

scenario() {
  local busid speed stick
  stick=$(local_device STICKXHCI)
  note "Linux $(uname -r), $(usbip_tool version)"
  start_recorder
  serve "$stick"
  busid=$stick
  for speed in 5 6 7; do
    attach_at_speed "$speed"
    wait_for 15 "$stick to be released" released "$stick" usb-storage
  done
  stop_server

  simulate loopback
  busid=$(simulated_busid)
  for speed in 0 1 2 3 4; do
    attach_at_speed "$speed"
  done
  stop_server
  stop_recorder
}

attach_at_speed() { # as on the wire
  local status=0 said port
  step "speed $1"
  recorder "speed $1" > /dev/null
  mark_log
  vhci_before=$(echo $(vhci_devices))
  said=$(usbip_tool --tcp-port 3241 attach -r 127.0.0.1 -b "$busid" 2>&1) || status=$?
  if ((status)); then
    note "speed $1: status $status, ${said##*$'\n'}; the kernel said: $(vhci_said)"
  elif wait_for 10 "the device" new_vhci_device; then
    attached=$(new_vhci_device_name)
    note "speed $1: taken, $(< "/sys/bus/usb/devices/$attached/speed") Mbit/s on a bus of" \
      "$(< "/sys/bus/usb/devices/usb${attached%%-*}/speed"), port $(port_of "$attached")"
    detach "$attached"
  else
    rm -f "$state/reason"
    note "speed $1: taken, and no device comes of it; the kernel said: $(vhci_said)"
    # By the kernel's own file: the tool shows no port without a device.
    for port in $(ports_in_use); do echo "$((10#$port))" > /sys/devices/platform/vhci_hcd.0/detach; done
  fi
  wait_for 20 "the port to be free" no_port_in_use
}
