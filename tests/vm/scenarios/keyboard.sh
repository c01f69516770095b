# Keys pressed at the host arrive at the client as the same key codes: interrupt IN, whose URB
# stays pending until a key is pressed.
limit=60

# The names of the monitor's sendkey, and the codes of linux/input-event-codes.h.
keys=(a 30 b 48 z 44 1 2 0 11 ret 28 f1 59 f10 68 esc 1 spc 57 left 105 delete 111 kp_5 76)

scenario() {
  local busid input i expected=()
  busid=$(local_device KEYBOARD)
  serve "$busid"
  attach "$busid"
  must_not_have "$busid" usbhid
  wait_for 20 "the input device of $attached" input_of "$attached"
  [[ -z $(below "$busid" '*/input/input*') ]] || fail "there still is a local input device"
  input=$(input_of "$attached")

  step "listen on $input"
  # Each key once, then a key with shift.
  start keys python3 "$vm/guest/keys.py" "$input" $((${#keys[@]} + 4))
  wait_until_said 20 keys listening
  # While no key is pressed the URB stays pending, and nothing may arrive.
  sleep 1
  for ((i = 0; i < ${#keys[@]}; i += 2)); do
    press "${keys[i]}" $((i + 2))
    expected+=("${keys[i + 1]} 1" "${keys[i + 1]} 0")
  done
  press shift-q $((i + 4))
  # QEMU lets go of the last first.
  expected+=("42 1" "16 1" "16 0" "42 0")
  diff <(printf '%s\n' "${expected[@]}") <(tail -n +2 "$state/keys") ||
    fail "other keys arrived than were pressed (see keyboard.log)"

  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" usbhid
  stop_server
  wait_for 15 "the local driver" has_driver "$busid" usbhid
}

# Presses a key and waits for the given total number of events.
press() { # key, events
  step "press $1"
  monitor sendkey "$1" 20
  wait_for 15 "$2 key events" arrived "$2"
}
arrived() { (($(wc -l < "$state/keys") > $1)); }
