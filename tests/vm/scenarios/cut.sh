# A client's network is cut without a word, once with 64 URBs pending on a silent endpoint, once with
# 64 under way both ways: the device can be imported again within the time limit, the driver is back.
limit=150
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/network.sh"
# The server's --peer-timeout, a few seconds of keepalive, and opening the device.
bound=20

scenario() {
  plug_gadget high-speed Loopback SourceSink
  load_usbtest "$gadget_busid"
  make_network
  serve_network "$gadget_busid"

  # The loopback's bulk IN has no data before the first data sent to its bulk OUT.
  note "64 URBs pending, nothing under way"
  cut_with_urbs_pending 0 64 0 0
  note "64 URBs pending, data under way both ways"
  cut_with_urbs_pending 1 32 32 300

  stop_server
  remove_network
  rmmod usbtest
  unplug_gadget
}

cut_with_urbs_pending() { # interface, IN, OUT, replies (see load.py)
  local cut_at
  start_load in_network "$server_address" "$gadget_busid" "$@"
  must_not_have "$gadget_busid" usbtest
  await_free "$gadget_busid" 60
  step "cut the network"
  cut_network
  cut_at=$EPOCHREALTIME
  came_free "$cut_at" $bound
  kill -KILL "$load"
  wait "$load" || true
  mend_network
  wait_for 5 "the local driver" has_driver "$gadget_busid" usbtest
}
