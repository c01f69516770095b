# A gadget unplugged and plugged in again 20 times under `usbferry attach --persist`, with usbferry as
# the server: the server tells the client, and the device is back on vhci each time.
limit=240
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/client.sh"
rounds=20

scenario() {
  local round
  plug_gadget high-speed SourceSink
  start_usbferry 3240 --device 0525:a4a0
  keep_attached '' 127.0.0.1 "$gadget_busid"
  wait_attached 30
  : > "$state/back"
  for ((round = 1; round <= rounds; round++)); do
    step "replug $round"
    disconnect_gadget
    wait_lost 10
    wait_for 10 "the gadget to go" device_gone "$gadget_busid"
    connect_gadget
    since=$EPOCHREALTIME
    wait_attached 15
    echo "$(seconds_between "$since" "$EPOCHREALTIME")" >> "$state/back"
  done
  note "attached again after $(median_and_most "$state/back")"
  (($(said_times "lost from port") == rounds)) || fail "lost $(said_times "lost from port") times"

  step "a device that is away is waited for, and the wait can be ended"
  disconnect_gadget
  wait_lost 10
  wait_for 10 "the client to say so" refused_for_want_of_the_device
  end_client INT
  connect_gadget
  stop_server
  unplug_gadget
}
refused_for_want_of_the_device() { tail -n 1 "$log/$name.client.log" | grep -q 'refused: '; }
