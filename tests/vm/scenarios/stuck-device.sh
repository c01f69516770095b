# Somebody holds a device's lock (guest/stuck.py), a client of the server or a program, for five seconds or for ever:
# requests for another device are answered meanwhile, and the reactor does not spin.
limit=180
servers=usbferry
zoo=yes

scenario() {
  local line other
  other=$(local_device STICKXHCI)
  modprobe usbserial
  echo "1209 0005" > /sys/bus/usb-serial/drivers/generic/new_id
  start_usbferry 3240 --device 1209:0005 --device "$other"
  start stuck python3 "$vm/guest/stuck.py" 3240 "$(server_pid)" "$other"
  while read -r line; do
    note "$line"
  done < <(tail -n +1 -f --pid="$started" "$state/stuck")
  wait "$started" || fail "$(tail -n 1 "$state/stuck")"
  stop_server
}
