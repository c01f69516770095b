# A phone under one name in all of its states: adb, then its bootloader after `adb reboot
# bootloader`, flashed by fastboot, then adb again. The client's `usbferry attach --persist` brings
# each state back by itself.
limit=300
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"
source "$vm/guest/rules.sh"
source "$vm/guest/firmware.sh"

scenario() {
  need_program adb fastboot
  keep_board phone 0x000a 0x000b adb
  wait_for 60 "adb to see the phone" adb_sees
  [[ $(at_client adb -s "$gadget_serial" shell echo hello) == hello ]] || fail "adb shell"
  note "adb: $(at_client adb devices -l | grep "$gadget_serial")"
  at_client adb -s "$gadget_serial" reboot bootloader
  leave
  become 0x000b fastboot "$state/flashed"

  head -c 300000 /dev/urandom > "$state/image"
  step "fastboot"
  wait_for 60 "fastboot to see the phone" fastboot_sees
  at_client fastboot -s "$gadget_serial" flash boot "$state/image" > "$state/fastboot" 2>&1 ||
    fail "fastboot: $(tail -n 1 "$state/fastboot")"
  cmp "$state/image" "$state/flashed" || fail "another image was flashed"
  note "fastboot: 300,000 bytes flashed"
  at_client fastboot -s "$gadget_serial" reboot > "$state/fastboot" 2>&1
  leave
  become 0x000a adb
  wait_for 60 "adb to see the phone again" adb_sees

  at_client adb kill-server
  end_board
}

adb_sees() {
  firmware_runs
  at_client adb devices 2> /dev/null | grep -q "^$gadget_serial[[:space:]]*device"
}
fastboot_sees() {
  firmware_runs
  at_client fastboot devices 2> /dev/null | grep -q "^$gadget_serial"
}
