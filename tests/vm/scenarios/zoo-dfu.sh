# A board under one name in service and in DFU mode: `dfu-util` has the board detach, finds the
# board in DFU mode, downloads a firmware and reads the firmware back. The client's `usbferry attach
# --persist` follows.
limit=240
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"
source "$vm/guest/rules.sh"
source "$vm/guest/firmware.sh"

scenario() {
  need_program dfu-util
  head -c 40000 /dev/urandom > "$state/firmware.bin"
  keep_board board 0x000c 0x000d run
  wait_for 60 "dfu-util to see the board" dfu_sees Runtime
  step "detach"
  at_client dfu-util -d 1209:000c -e > "$state/dfu" 2>&1 || true
  leave
  head -c 10 /dev/urandom > "$state/flash"
  become 0x000d dfu "$state/flash"
  wait_for 60 "dfu-util to see DFU mode" dfu_sees DFU
  step "download"
  at_client dfu-util -d 1209:000d -t 1024 -D "$state/firmware.bin" > "$state/dfu" 2>&1 ||
    fail "dfu-util -D: $(tail -n 1 "$state/dfu")"
  leave
  cmp "$state/firmware.bin" "$state/flash" || fail "another firmware was downloaded"
  become 0x000d dfu "$state/flash"
  wait_for 60 "dfu-util to see DFU mode again" dfu_sees DFU
  step "upload"
  at_client dfu-util -d 1209:000d -t 1024 -U "$state/read.bin" > "$state/dfu" 2>&1 ||
    fail "dfu-util -U: $(tail -n 1 "$state/dfu")"
  cmp "$state/firmware.bin" "$state/read.bin" || fail "another firmware was read"
  note "dfu-util: detached, 40,000 bytes downloaded and read back"
  end_board
}

dfu_sees() { # Runtime or DFU
  firmware_runs
  at_client dfu-util -l 2> /dev/null | grep -q "^Found $1:"
}
