# Records the data that this kernel's vhci and this usbip tool send to a server: the tool's calls on
# its socket, and the headers of each class driver's SUBMITs. docs/kernels.md has the results.
limit=500
measures=yes
servers=usbferry

source "$vm/guest/recorder.sh"
source "$vm/guest/gadget.sh"
source "$vm/guest/sound.sh"

tracing=/sys/kernel/tracing

scenario() {
  local xhci ehci keyboard sound
  xhci=$(local_device STICKXHCI)
  ehci=$(local_device STICKEHCI)
  keyboard=$(local_device KEYBOARD)
  sound=$(local_device SOUND)
  note "Linux $(uname -r), $(usbip_tool version)"
  note "tcp_rmem $(< /proc/sys/net/ipv4/tcp_rmem); tcp_wmem $(< /proc/sys/net/ipv4/tcp_wmem)"
  note_hubs
  plug_gadget high-speed acm
  serve "$xhci" "$ehci" "$keyboard" "$sound" "$gadget_busid"
  start_recorder

  trace_tool
  record_disk "$xhci" 'usb-storage, super speed'
  record_disk "$ehci" 'usb-storage, high speed'
  record_keyboard "$keyboard"
  record_sound "$sound"
  record_serial "$gadget_busid"
  stop_server
  unplug_gadget

  simulate microphone
  record_microphone "$(simulated_busid)"
  stop_server
  stop_recorder
}

note_hubs() {
  local hub said=
  for hub in /sys/devices/platform/vhci_hcd.0/usb[0-9]*; do
    said+=", $(< "$hub/maxchild") ports at $(< "$hub/speed") Mbit/s (USB $(xargs < "$hub/version"))"
  done
  set -- /sys/devices/platform/vhci_hcd.*
  note "$# controllers, of each${said#,}"
}

# The calls of `usbip attach`, by the kernel's own tracing.
trace_tool() {
  local events=(setsockopt connect sendto recvfrom write) event
  mountpoint -q "$tracing" || mount -t tracefs tracefs "$tracing"
  for event in "${events[@]}"; do echo 1 > "$tracing/events/syscalls/sys_enter_$event/enable"; done
  echo > "$tracing/trace"
  attach "$xhci" 3241
  for event in "${events[@]}"; do echo 0 > "$tracing/events/syscalls/sys_enter_$event/enable"; done
  # The trace names the tool by its loader.
  note "usbip attach: $(sed -n 's/^ *ld-linux.*: sys_\(.*\)$/\1/p' "$tracing/trace" |
    sed -E 's/(buf|buff|ubuf|optval|uservaddr|addr|addr_len|optlen|addrlen): [0-9a-fx]+,? ?//g' |
    tr '\n' ';')"
  note "its socket afterwards: $(ss -Htno 'dport = :3241' | tr -s ' ')"
}

finish() { # busid, driver, what it is
  detach "$attached"
  wait_for 15 "$1 to be released" released "$1" "$2"
  note_recorded "$3"
}

record_disk() { # busid, what it is
  [[ $1 == "$xhci" ]] || attach "$1" 3241
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  step "read and write $2"
  dd if="$(block_device_of "$attached")" of="$state/read.img" bs=1M count=4 iflag=direct status=none
  dd if="$state/read.img" of="$(block_device_of "$attached")" bs=1M count=2 oflag=direct status=none
  finish "$1" usb-storage "$2"
}

record_keyboard() { # busid
  attach "$1" 3241
  wait_for 20 "the input device of $attached" input_of "$attached"
  start keys python3 "$vm/guest/keys.py" "$(input_of "$attached")" 2
  wait_until_said 20 keys listening
  monitor sendkey a 20
  wait_for 20 "the key" process_gone "$started"
  finish "$1" usbhid 'usbhid, keyboard'
}

record_sound() { # busid
  attach "$1" 3241
  wait_for 20 "the sound card of $attached" card_of "$attached"
  make_ramp 24000
  step "play"
  # The recorder is slow: complete sound does not matter here.
  aplay -D "hw:$(card_of "$attached"),0" --buffer-time=5000000 --period-time=50000 \
    "$state/ramp.wav" || note "aplay failed"
  finish "$1" snd-usb-audio 'snd-usb-audio, playing'
}

record_microphone() { # busid
  attach "$1" 3241
  wait_for 20 "the sound card of $attached" card_of "$attached"
  step "record"
  arecord -D "hw:$(card_of "$attached"),0" -f S16_LE -r 48000 -c 1 -s 24000 \
    --buffer-time=5000000 --period-time=50000 "$state/recording.wav" ||
    note "arecord failed"
  detach "$attached"
  note_recorded 'snd-usb-audio, recording'
}

record_serial() { # busid
  local tty said gadget_side port
  modprobe cdc-acm
  wait_for 20 "the local driver" has_driver "$1" cdc_acm
  attach "$1" 3241
  wait_for 20 "cdc_acm to take $attached" has_driver "$attached" cdc_acm
  tty=$(below "$attached" '*/tty/ttyACM*')
  tty=/dev/${tty##*/}
  step "write to $tty"
  # The gadget discards incoming data while its own side is closed.
  exec {gadget_side}<> /dev/ttyGS0 {port}<> "$tty"
  stty -F /dev/ttyGS0 raw -echo
  stty -F "$tty" raw -echo
  printf 'there\n' >&"$port"
  read -r -t $((20 * patience)) -u "$gadget_side" said || fail "nothing of what was written arrived"
  printf 'back\n' >&"$gadget_side"
  read -r -t $((20 * patience)) -u "$port" said || fail "nothing of what was written back arrived"
  exec {gadget_side}>&- {port}>&-
  finish "$1" cdc_acm 'cdc_acm, high speed'
  rmmod cdc-acm
}
