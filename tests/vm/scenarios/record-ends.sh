# Records the reaction of this kernel's vhci when a server ends the session, breaks the protocol or
# falls silent: the state of the port, the errors of a program reading the disk, and the statuses of
# the class driver's URBs. See docs/kernels.md.
limit=500
measures=yes
servers=usbferry

source "$vm/guest/recorder.sh"

scenario() {
  local how busid
  note "Linux $(uname -r), $(usbip_tool version)"
  modprobe usbmon
  mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
  simulate microphone
  start_recorder
  busid=$(simulated_busid)
  end_stream
  stop_server

  simulate disk
  busid=$(simulated_busid)
  for how in close reset half unknown command long; do
    end_session "$how"
  done
  fall_silent
  stop_server
  stop_recorder
}

end_session() { # how
  local since
  read_disk
  step "end the session: $1"
  since=$EPOCHREALTIME
  [[ $(recorder "$1") == done ]] || fail "$1: the recorder could not"
  # The kernel's own time limit for a command of a disk is 30 s.
  wait_for 60 "the reader to end" process_gone "$reads"
  wait "$reads" || true
  note "$1: the reader had $(tail -n 1 "$state/reads") after $(seconds_between "$since" "$EPOCHREALTIME") s"
  after_end "$1"
}

# No reply and no end: after its own time limit the driver waits for the answer to an UNLINK.
fall_silent() {
  local hung_task=/proc/sys/kernel/hung_task_timeout_secs had
  # The kernel must report the endless wait.
  had=$(< $hung_task)
  echo 0 > $hung_task
  read_disk
  step "fall silent"
  [[ $(recorder silent) == done ]] || fail "silent: the recorder could not"
  wait_for 60 "an UNLINK" unlinked
  sleep 10
  process_gone "$reads" && note "silent: the reader had $(tail -n 1 "$state/reads")"
  note "silent: asleep for good: $(stuck_tasks | tr '\n' ' ')"
  recorder close > /dev/null
  wait_for 60 "the reader to end" process_gone "$reads"
  wait "$reads" || true
  note "silent, then closed: the reader had $(tail -n 1 "$state/reads")"
  after_end silent
  echo "$had" > $hung_task
}
unlinked() { recorder table | grep -q unlinked; }

read_disk() {
  attach "$busid" 3241
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  start_reads "$(block_device_of "$attached")"
  watch_bus
}

# The stream of a sound card, with a reply that announces no packets.
end_stream() {
  attach "$busid" 3241
  wait_for 20 "the sound card of $attached" card_of "$attached"
  start recording arecord -D "hw:$(card_of "$attached"),0" -f S16_LE -r 48000 -c 1 -d 60 \
    --buffer-time=5000000 --period-time=50000 "$state/recording.wav"
  watch_bus
  step "a reply without packets"
  note "packets: $(recorder packets)"
  wait_for 90 "the recording to end" process_gone "$started"
  note "packets: arecord said $(tail -n 1 "$state/recording")"
  after_end packets
}

after_end() { # how
  kill "$usbmon"
  wait "$usbmon" 2> /dev/null || true
  if wait_for 10 "$attached to go" device_gone "$attached"; then
    wait_for 20 "the port to be free" no_port_in_use
    note "$1: port free, device gone"
  else
    rm -f "$state/reason"
    note "$1: still attached"
    detach "$attached"
  fi
  # usbmon has the status of each ended URB; most statuses of 0 are from before the reply.
  note "$1: statuses of URBs: $(awk '$3 == "C" {split($5, word, ":"); count[word[1]]++}
    END {for (s in count) printf "%s (%d) ", s, count[s]}' "$state/monitor")"
  note "$1: the kernel said: $(vhci_said)"
}

# Records the ends of URBs on the bus of $attached from now on.
watch_bus() {
  mark_log
  : > "$state/monitor"
  cat "/sys/kernel/debug/usb/usbmon/${attached%%-*}u" > "$state/monitor" &
  usbmon=$!
  # There are URBs all the time.
  wait_for 20 "usbmon" bus_watched
}
bus_watched() { [[ -s $state/monitor ]]; }
