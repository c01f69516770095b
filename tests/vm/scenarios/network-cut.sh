# A network cut of 40 s under `usbferry attach --persist`: both ends notice, the server gives the
# device back to its driver, and the client attaches it again by itself when the network is back.
limit=240
servers=usbferry

source "$vm/guest/network.sh"
source "$vm/guest/client.sh"
cut=40
# The server's --peer-timeout, a few seconds of keepalive.
bound=22

scenario() {
  local busid cut_at back_at
  busid=$(local_device STICKXHCI)
  make_network
  serve_network "$busid"
  keep_attached "ip netns exec client" "$server_address" "$busid"
  wait_attached 30
  has_right_data

  step "cut the network for $cut s"
  cut_network
  cut_at=$EPOCHREALTIME
  wait_lost $bound
  note "the client noticed after $(seconds_between "$cut_at" "$EPOCHREALTIME") s"
  wait_for $bound "the local driver" driver_on "$busid" usb-storage
  note "the server noticed after $(seconds_between "$cut_at" "$EPOCHREALTIME") s"
  wait_for $((cut + 5)) "the cut to be over" over_since "$cut_at" $cut
  mend_network
  back_at=$EPOCHREALTIME
  # A try waits 4 s.
  wait_attached 20
  note "attached again $(seconds_between "$back_at" "$EPOCHREALTIME") s after the cut"
  has_right_data

  end_client TERM
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  stop_server
  remove_network
}

over_since() { awk "BEGIN {exit !($EPOCHREALTIME - $1 >= $2)}"; } # since, seconds

has_right_data() {
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  dd if="$(block_device_of "$attached")" bs=1M count=2 iflag=direct status=none |
    cmp - <(head -c 2M "$run/stick-xhci.img") || fail "other data than on the stick"
}
