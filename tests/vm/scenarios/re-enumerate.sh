# 100 re-enumerations of a gadget, as another product each time, half of them during a session: each
# new identity is listed soon and can be imported, the client of the old identity sees an end,
# nothing leaks.
limit=270
servers=usbferry

source "$vm/guest/gadget.sh"
# Seconds. Without emulation the bound is 0.3 s. Here the list and the import, each with a scan,
# take 1.1 s in the median by themselves, on a machine with three times its capacity of work.
bound=$((2 * patience))

scenario() {
  local before after
  plug_gadget high-speed SourceSink
  keep_no_freed_memory
  # Everything but QEMU's devices, known by their vendor ids.
  start_usbferry 3240 --all --exclude 46f4:0001 --exclude 46f4:0002 --exclude 0627:0001

  re_enumerate 10
  before=$(server_holds "$gadget_busid")
  grow_less_than 512 100 re_enumerate
  after=$(server_holds "$gadget_busid")
  note "$(< "$state/re-enumerated"); $after"
  [[ $after == "$before" ]] || fail "before: $before; after: $after"

  stop_server
  unplug_gadget
}

re_enumerate() { # count
  step "$1 re-enumerations"
  python3 "$vm/guest/reenumerate.py" 127.0.0.1 "$gadget" "$1" $bound > "$state/re-enumerated" 2>&1 ||
    fail "$(tail -n 1 "$state/re-enumerated")"
}
