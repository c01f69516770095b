# The largest URBs of a program on the client. With vhci of 6.1 the limit is 4 MiB, one block of
# memory of the client's kernel, and no larger URB leaves the client. From 7.x on vhci takes any
# length in pieces, so a single SUBMIT can be as large as the memory of the client's usbfs.
limit=90
servers=usbferry

sizes=(1048577 4194304 8388608 15000000)

scenario() {
  local busid size said
  simulate loopback
  busid=$(simulated_busid)
  attach "$busid"
  for size in "${sizes[@]}"; do
    step "a URB of $size bytes each way"
    said=$(python3 "$vm/guest/large.py" "$attached" "$size" 2>&1) || true
    note "$size bytes: $said"
    case $said in
      "read $size, written $size, 0 errors") ;;
      "not submitted: ENOMEM")
        # Refused by the client's own kernel: the server never saw the URB.
        ((size > 4194304)) && [[ $(uname -r) == 6.* ]] || fail "$size bytes: $said"
        ;;
      *) fail "$size bytes: $said" ;;
    esac
  done
  detach "$attached"
  stop_server
}
