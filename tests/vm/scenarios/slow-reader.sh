# A client that submits and never reads, and a client with many large URBs that never end, each
# beside a client that reads a disk through vhci. The disk is read to its end while the other client
# is stalled, the data is right, and the other session holds no more than its memory.
limit=150
servers=usbferry

source "$vm/guest/gadget.sh"

scenario() {
  local stick disk expected=$state/expected.img before memory_before
  stick=$(local_device STICKXHCI)
  cp "$run/stick-xhci.img" "$expected"
  plug_gadget high-speed SourceSink Loopback
  # By design, a client that takes no byte for the server's --peer-timeout is dropped. Here the
  # client has to stay, however long the machine takes, and the client also sends until the server's
  # socket is full. On a machine of this size kernels of 7.x have room for 15 MiB in the socket, and
  # 6.1 for 6.
  start_usbferry 3240 --device "$gadget_busid" --device "$stick" --peer-timeout 3600s
  attach "$stick"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")

  read_all
  before=$elapsed
  memory_before=$(server_memory Rss)
  read_beside unread
  read_beside pending

  detach "$attached"
  wait_for 15 "$stick to be released" released "$stick" usb-storage
  stop_server
  unplug_gadget
}

read_beside() { # what the other client does (see slow.py)
  local slow memory
  step "a client with URBs $1"
  start slow python3 "$vm/guest/slow.py" 127.0.0.1 "$gadget_busid" "$1"
  slow=$started
  wait_until_said 60 slow 'stalled .*'
  read_all
  # While the client is stalled none of the memory is given back. VmHWM would be wrong: VmHWM misses
  # the pages not yet accounted for by each thread, as many as 64 on kernels before 6.2.
  memory=$(($(server_memory Rss) - memory_before))
  note "$1: $(< "$state/slow"); $before s alone, $elapsed s beside it, $memory KiB more memory"
  process_gone "$slow" && fail "the other client is gone: $(tail -n 1 "$state/slow")"
  # The session's --memory and --device-memory, the other allocations, and the context and transfers
  # that are made ahead for the next device.
  ((memory < (64 + 2 + 6 + 4) << 10)) || fail "$memory KiB for a client with URBs $1"
  kill -KILL "$slow"
  wait "$slow" 2> /dev/null || true
  wait_for 5 "the gadget to be free" listed "$gadget_busid"
}

# Leaves the number of seconds in $elapsed.
read_all() {
  local since=$EPOCHREALTIME
  step "read the disk"
  timeout $((30 * patience)) dd if="$disk" of="$state/read.img" bs=1M iflag=direct status=none ||
    fail "the disk can't be read"
  elapsed=$(seconds_between "$since" "$EPOCHREALTIME")
  cmp "$state/read.img" "$expected" || fail "other data than on the stick"
}
