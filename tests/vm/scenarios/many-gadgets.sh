# 32 gadgets at once, each with reads of 120 KiB, at default settings: usbfs has 16 MiB for all of
# them. Before the measurement each gadget moves the amount that earns a mapping, so that gadgets
# get mappings as far as possible.
limit=600
servers=usbferry

count=32
gadgets=/sys/kernel/config/usb_gadget

scenario() {
  local number busids=() serial
  step "plug $count gadgets"
  modprobe -a libcomposite usb_f_ss_lb
  modprobe dummy_hcd num=$count
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  for ((number = 0; number < count; number++)); do plug "$number"; done
  wait_for 60 "all gadgets" all_there
  for ((number = 0; number < count; number++)); do busids+=("$(local_device "MANY$number")"); done

  note "usbfs has $(< /sys/module/usbcore/parameters/usbfs_memory_mb) MiB"
  start_usbferry 3240 --device 0525:a4a0
  wait_for 60 "all to be listed" all_listed
  step "read"
  python3 "$vm/guest/many.py" 127.0.0.1 $((3 << 20)) "${busids[@]}" > "$state/many" 2>&1 ||
    fail "$(tail -n 1 "$state/many")"
  while read -r serial; do note "$serial"; done < "$state/many"
  stop_server

  step "unplug them"
  for ((number = 0; number < count; number++)); do unplug "$number"; done
  rmmod dummy_hcd
}

plug() { # number
  local gadget=$gadgets/many$1
  mkdir -p "$gadget"/{strings/0x409,configs/c.1/strings/0x409} "$gadget/functions/SourceSink.0"
  echo 0x0525 > "$gadget/idVendor"
  echo 0xa4a0 > "$gadget/idProduct"
  echo high-speed > "$gadget/max_speed"
  echo "MANY$1" > "$gadget/strings/0x409/serialnumber"
  ln -s "$gadget/functions/SourceSink.0" "$gadget/configs/c.1/"
  echo "dummy_udc.$1" > "$gadget/UDC"
}

unplug() { # number
  local gadget=$gadgets/many$1
  echo > "$gadget/UDC"
  rm "$gadget/configs/c.1/SourceSink.0"
  rmdir "$gadget"/{configs/c.1/strings/0x409,configs/c.1,strings/0x409} \
    "$gadget/functions/SourceSink.0" "$gadget"
}

all_there() {
  local interfaces=(/sys/bus/usb/devices/*:1.0)
  local serials
  serials=$(cat /sys/bus/usb/devices/*/serial 2> /dev/null | grep -c '^MANY') || true
  ((serials == count && ${#interfaces[@]} >= count))
}

all_listed() { (($(usbip_py 127.0.0.1 list | grep -c ' 0525:a4a0$') == count)); }
