# A serial adapter of a probe over `ssh -R`: the server listens on its own machine only, and the
# client, behind a network of its own, attaches from its own end of the tunnel.
limit=240
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"
source "$vm/guest/network.sh"
source "$vm/guest/rules.sh"

scenario() {
  local busid tty tunnel
  need_program ssh sshd ssh-keygen
  modprobe -a ftdi_sio cdc-acm
  plug_hub
  plug "chardev-add socket,id=near,path=$host_run/wire,server=on,wait=off" \
    "device_add usb-serial,bus=xhci.0,port=4.1,id=serial-near,chardev=near,always-plugged=on"
  near=$plugged
  plug "chardev-add socket,id=far,path=$host_run/wire" \
    "device_add usb-serial,bus=xhci.0,port=4.2,id=serial-far,chardev=far,always-plugged=on"
  busid=$plugged
  wait_for 30 "the local driver" has_driver "$busid" ftdi_sio
  make_network
  in_network ip link set lo up
  write_rules << RULES
[[rule]]
busid = "$busid"
name = "probe"
RULES
  serve_rules
  start_sshd
  step "ssh -R"
  ssh -i "$state/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ExitOnForwardFailure=yes -N -R 3240:127.0.0.1:3240 -p 2222 "root@$client_address" \
    > "$state/tunnel" 2>&1 &
  tunnel=$!
  wait_for 30 "the far end of the tunnel" in_network "$usbferry" list --remote 127.0.0.1
  attach_through_tunnel
  wait_for 30 "the port of $attached" tty_of "$attached"
  tty=$(tty_of "$attached")
  zmodem "$tty" "$(tty_of "$near")" 20000
  zmodem "$(tty_of "$near")" "$tty" 20000
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" ftdi_sio
  kill "$tunnel"
  wait "$tunnel" 2> /dev/null || true
  kill "$(< "$state/sshd.pid")"
  stop_server
  remove_network
  unplug "$busid" serial-far
  unplug "$near" serial-near
  monitor "chardev-remove far"
  monitor "chardev-remove near"
  unplug_hub
}

attach_through_tunnel() {
  step "usbip attach -b probe"
  vhci_before=$(echo $(vhci_devices))
  in_network "${packaged[@]}" "$cache/root/usr/sbin/usbip" attach -r 127.0.0.1 -b probe
  wait_for 20 "the probe on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
}

start_sshd() {
  step "sshd"
  mkdir -p /run/sshd /root/.ssh
  chmod 700 /root /root/.ssh
  ssh-keygen -q -t ed25519 -N '' -f "$state/key"
  ssh-keygen -q -t ed25519 -N '' -f "$state/host-key"
  in_network "$(command -v sshd)" -p 2222 -h "$state/host-key" -o PidFile="$state/sshd.pid" \
    -o AuthorizedKeysFile="$state/key.pub" -o StrictModes=no -o UsePAM=no
  wait_for 20 "sshd" test -s "$state/sshd.pid"
}
