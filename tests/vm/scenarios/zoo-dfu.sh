# A board under one name in service and in DFU mode: `dfu-util` has the board detach, finds the
# board in DFU mode, downloads a firmware and reads the firmware back. The client's `usbferry attach
# --persist` follows.
limit=240
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"
source "$vm/guest/firmware.sh"
source "$vm/guest/rules.sh"

scenario() {
  local persist
  need_program dfu-util
  head -c 40000 /dev/urandom > "$state/firmware.bin"
  make_board 0x000c
  become 0x000c run
  write_rules << 'RULES'
[[rule]]
id = ["1209:000c", "1209:000d"]
name = "board"
RULES
  serve_rules
  start persist "$usbferry" attach 127.0.0.1 board --persist
  persist=$started
  wait_for 60 "dfu-util to see the board" dfu_sees Runtime
  step "detach"
  at_client dfu-util -d 1209:000c -e > "$state/dfu" 2>&1 || true
  leave
  head -c 10 /dev/urandom > "$state/flash"
  become 0x000d dfu "$state/flash"
  wait_for 60 "dfu-util to see DFU mode" dfu_sees DFU
  step "download"
  at_client dfu-util -d 1209:000d -D "$state/firmware.bin" > "$state/dfu" 2>&1 ||
    fail "dfu-util -D: $(tail -n 1 "$state/dfu")"
  leave
  cmp "$state/firmware.bin" "$state/flash" || fail "another firmware was downloaded"
  become 0x000d dfu "$state/flash"
  wait_for 60 "dfu-util to see DFU mode again" dfu_sees DFU
  step "upload"
  at_client dfu-util -d 1209:000d -U "$state/read.bin" > "$state/dfu" 2>&1 ||
    fail "dfu-util -U: $(tail -n 1 "$state/dfu")"
  cmp "$state/firmware.bin" "$state/read.bin" || fail "another firmware was read"
  note "dfu-util: detached, 40,000 bytes downloaded and read back"
  kill -TERM "$persist"
  wait "$persist" || true
  [[ -z $(vhci_devices) ]] || detach "$(vhci_devices)"
  stop_server
  pull
  remove_board
}

dfu_sees() { at_client dfu-util -l 2> /dev/null | grep -q "^Found $1:"; } # Runtime or DFU
