# A network adapter with two configurations, CDC and RNDIS: the client changes from its kernel's
# choice to the other configuration and back. In each: a lease by DHCP, pings and a file by TFTP.
limit=300
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  modprobe -a cdc_ether rndis_host
  mkdir -p "$run/tftp"
  head -c 200K /dev/urandom > "$run/tftp/file"
  plug_hub
  plug "netdev_add user,id=lan,restrict=on,tftp=$host_run/tftp" \
    "device_add usb-net,bus=xhci.0,port=4.1,id=net,netdev=lan"
  wait_for 30 "the local driver" has_driver "$plugged" cdc_ether
  attach_and_release "$plugged" cdc_ether judge
  wait_for 30 "the local network" net_of "$plugged"
  unplug "$plugged" net
  monitor "netdev_del lan"
  unplug_hub
}

judge() {
  local first
  keep_order
  first=$(< "/sys/bus/usb/devices/$attached/bConfigurationValue")
  use_network cdc_ether
  get_file
  switch_to $((3 - first))
  use_network rndis_host
  get_file
  switch_to "$first"
  use_network cdc_ether
  get_file
}

# The client's receiving thread is kept on one processor. Otherwise packets received on two
# processors overtake each other (netif_rx() has a queue for each). QEMU's TFTP server answers any
# acknowledgement with the next block and sends no block again, so the transfer could not go on.
keep_order() {
  local thread
  for thread in $(pgrep -x vhci_rx); do taskset -p 1 "$thread"; done
}

switch_to() { # configuration
  step "switch to configuration $1"
  echo "$1" > "/sys/bus/usb/devices/$attached/bConfigurationValue"
  (($(< "/sys/bus/usb/devices/$attached/bConfigurationValue") == $1)) ||
    fail "the configuration did not change"
}

use_network() { # driver
  wait_for 30 "the network of $attached" net_of "$attached"
  net=$(net_of "$attached")
  driver_on "$attached" "$1" || fail "not $1 but $(drivers_of "$attached" | head -1)"
  step "DHCP on $net ($1)"
  ip link set "$net" up
  printf '#!/bin/sh\n[ "$1" != bound ] || ip address add "$ip/24" dev "$interface"\n' > "$state/lease"
  chmod +x "$state/lease"
  busybox udhcpc -f -n -q -t 10 -T 5 -i "$net" -s "$state/lease" || fail "no lease by $net"
  step "ping by $net"
  busybox ping -c 5 -W 10 -s 1400 -I "$net" 10.0.2.2 > "$state/ping" ||
    fail "ping: $(tail -n 2 "$state/ping")"
  note "$1: a lease and 5 pings"
}

get_file() {
  step "TFTP by $net"
  (cd "$state" && rm -f file && busybox tftp -g -r file 10.0.2.2) || fail "tftp by $net"
  cmp "$run/tftp/file" "$state/file" || fail "another file arrived by $net"
  note "200 KiB by TFTP"
}
