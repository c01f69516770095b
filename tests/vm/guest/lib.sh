# The building blocks of scenarios. Sourced by guest/init and guest/scenario.
#
# Starting a program costs a tenth of a second under emulation, so loops use bash only.
#
# A scenario calls `serve BUSID...` or `simulate KIND`, `attach BUSID`, looks at the device on vhci,
# `detach`es the device and ends with `stop_server`. Any failing command fails the scenario; `fail`
# gives a better reason. If a scenario leaves anything behind (a driver not given back, a running
# server, an attached port, an oops), guest/init fails the scenario.

shopt -s extglob
channel=/dev/ttyS1
cache=/run/vm
log=$cache/log
run=$cache/run
state=/run/state
source "$run/settings"

# The words of kernels from 6.1 on. In a WARN, kernels 7.x name the place before the processor; for
# a hung task, the place of the wait before its length.
kernel_trouble_pattern='BUG:|WARNING: (CPU: |.*CPU#)|Oops|general protection|blocked.* for more than'
kernel_trouble_pattern+='|self-detected stall|detected stalls|soft lockup|refcount_t|UBSAN'
kernel_trouble_pattern+='|list_add corruption|list_del corruption|Bad page|scheduling while atomic'

# ---- Talking to the host -------------------------------------------------------------------------

report() { echo "$*" > "$channel"; }
note() { echo "$*" > "$state/step"; report "NOTE $*"; }
step() { echo "$*" > "$state/step"; report "STEP $*"; }

# A command of QEMU's monitor: `monitor sendkey a`.
monitor() {
  local reply
  exec {line}<> "$channel"
  echo "MONITOR $*" >&"$line"
  read -r -t $((20 * patience)) -u "$line" reply
  exec {line}>&-
  [[ $reply == OK ]]
}

fail() {
  echo "$*" > "$state/reason"
  exit 1
}

# ---- Waiting -------------------------------------------------------------------------------------

# Sleeps a tenth of a second without starting a program.
exec {never}<> <(:)
pause() { read -r -t 0.1 -u "$never" || true; }

# Waits until the command succeeds, for the given number of seconds at most.
wait_for() { # seconds, what for, command...
  local seconds=$(($1 * patience)) what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    if ((SECONDS > end)); then
      echo "waited $seconds s in vain for $what" | tee "$state/reason" >&2
      return 1
    fi
    pause
  done
}

process_gone() { ! kill -0 "$1" 2> /dev/null; }

# Runs a program in the background. Its output goes to a file in $state, emptied before. $started is
# the program's process.
start() { # file, command...
  local said=$state/$1
  shift
  # By this shell, since the other shell may begin late.
  : > "$said"
  "$@" > "$said" 2>&1 &
  started=$!
}

# Waits until a started program prints the line.
wait_until_said() { # seconds, file, line
  wait_for "$1" "$2 to say $3" said_or_dead "$2" "$3" "$started"
  grep -qx "$3" "$state/$2" || fail "$2 ended: $(tail -n 1 "$state/$2")"
}
said_or_dead() { grep -qx "$2" "$state/$1" || process_gone "$3"; }

# ---- Devices: which is which -----------------------------------------------------------------------
# Attached over loopback, a device exists twice in one guest. A device that came through vhci has
# vhci in its real path. All names here are sysfs names: 2-1 for a device, 2-1:1.0 an interface.

devices_on() { # vhci or local
  local path device hub where
  for path in /sys/bus/usb/devices/[0-9]*-*; do
    device=${path##*/}
    [[ $device != *:* ]] || continue
    hub=(/sys/devices/platform/vhci_hcd.*/usb"${device%%-*}")
    where=local
    [[ ! -e ${hub[0]} ]] || where=vhci
    [[ $where != "$1" ]] || echo "$device"
  done
}
vhci_devices() { devices_on vhci; }
local_devices() { devices_on local; }

# The local device with the serial number (see qemu_devices in tests/vm/run).
local_device() { # serial
  local device serial
  for device in $(local_devices); do
    read -r serial < "/sys/bus/usb/devices/$device/serial" || continue
    [[ $serial != "$1" ]] || echo "$device"
  done 2> /dev/null
}

# The driver of each interface of a device: "2-1:1.0 usb-storage".
drivers_of() { # device
  local interface driver
  for interface in "/sys/bus/usb/devices/$1/$1":*; do
    [[ -e $interface ]] || continue
    interface=${interface##*/}
    driver=(/sys/bus/usb/drivers/*/"$interface")
    driver=${driver[0]%/*}
    [[ $driver != *'*' ]] || driver=none
    echo "$interface ${driver##*/}"
  done
}

local_drivers() {
  local device
  for device in $(local_devices); do drivers_of "$device"; done
}

# Whether every interface of a device has the given driver.
has_driver() { # device, driver
  local drivers
  drivers=$(drivers_of "$1")
  [[ -n $drivers && -z ${drivers//"$1:"+([0-9.]) "$2"*($'\n')/} ]]
}

# Whether the driver has at least one interface of the device.
driver_on() { # device, driver
  [[ $(drivers_of "$1")$'\n' == *" $2"$'\n'* ]]
}

# A file made by a driver below a device: `below 9-1 '*/block/sd?'`.
below() { # device, path pattern
  find "$(readlink -f "/sys/bus/usb/devices/$1")" -path "$2" 2> /dev/null | head -1
}

block_device_of() { # device
  local path
  path=$(below "$1" '*/block/sd?')
  [[ -n $path && $(< "$path/size") -gt 0 ]] && echo "/dev/${path##*/}"
}

# The number of a device's card, found by the path: the number itself says nothing about the device.
card_of() { # device
  local path
  path=$(below "$1" '*/sound/card[0-9]*/controlC*')
  [[ -n $path ]] && echo "${path##*/controlC}"
}

input_of() { # device
  local path
  path=$(below "$1" '*/input/input*/event*')
  [[ -n $path ]] && echo "/dev/input/${path##*/}"
}

tty_of() { # device
  local path
  path=$(below "$1" '*/tty[AU]*[0-9]')
  [[ -n $path && -c /dev/${path##*/} ]] && echo "/dev/${path##*/}"
}

# As lsusb names a device.
address_of() { # device
  echo "$(< "/sys/bus/usb/devices/$1/busnum"):$(< "/sys/bus/usb/devices/$1/devnum")"
}

# ---- The server under test -------------------------------------------------------------------------

need_usbferry() {
  [[ $server == usbferry ]] || fail "needs usbferry: $server has no simulated devices"
}

listening() { # port
  local hex address state_code
  printf -v hex '%04X' "$1"
  while read -r _ address _ state_code _; do
    [[ $state_code != 0A || $address != *:$hex ]] || return 0
  done < <(cat /proc/net/tcp /proc/net/tcp6)
  return 1
}

# Runs `usbferry serve ARGUMENT...`; returns when the server listens on the port.
start_usbferry() { # port, argument...
  local port=$1
  shift
  listening "$port" && fail "something listens on port $port already"
  step "usbferry serve $*"
  RUST_BACKTRACE=1 "$usbferry" serve "$@" >> "$log/$name.server.log" 2>&1 &
  echo "$! $port" >> "$state/servers"
  wait_for 20 "usbferry on port $port" listening_or_dead "$port" $!
  listening "$port" ||
    fail "usbferry serve $* ended at once: $(tail -n 3 "$log/$name.server.log")"
}

listening_or_dead() { listening "$1" || ! kill -0 "$2" 2> /dev/null; }

# Exports local devices on port 3240.
serve() { # busid...
  local busid arguments=()
  case $server in
    usbferry)
      for busid in "$@"; do arguments+=(--device "$busid"); done
      start_usbferry 3240 "${arguments[@]}"
      ;;
    usbipd)
      for busid in "$@"; do
        step "usbip bind $busid"
        usbip_tool bind -b "$busid"
        echo "$busid" >> "$state/bound"
      done
      listening 3240 && fail "something listens on port 3240 already"
      "${packaged[@]}" "$cache/root/usr/sbin/usbipd" >> "$log/$name.server.log" 2>&1 &
      echo "$! 3240" >> "$state/servers"
      wait_for 20 "usbipd" listening 3240
      ;;
  esac
}

simulate() { # kind, further arguments
  need_usbferry
  start_usbferry 3240 --simulate="$1" "${@:2}"
}

# The busid of the only simulated device; both list tools have to show the device.
simulated_busid() {
  local busid
  busid=$(remote_busids)
  [[ -n $busid && $busid != *$'\n'* ]] || fail "usbip list -r shows not one device but: $busid"
  "$usbferry" list --remote 127.0.0.1 | grep -qF -- "$busid" ||
    fail "usbferry list --remote does not show $busid"
  echo "$busid"
}

# Ends the server on the port (3240) like a service manager: SIGTERM, exit 0.
stop_server() { # [port]
  local port=${1:-3240} pid status=0 busid
  step "stop the server on port $port"
  pid=$(server_pid "$port")
  sed -i "/ $port\$/d" "$state/servers"
  kill -TERM "$pid"
  # A server that does not end is killed, and fails by its exit status.
  (
    sleep $((15 * patience))
    kill -KILL "$pid"
  ) > /dev/null 2>&1 &
  local killer=$!
  wait "$pid" || status=$?
  kill "$killer" 2> /dev/null || true
  if [[ $server == usbipd ]]; then
    while read -r busid; do usbip_tool unbind -b "$busid"; done < "$state/bound"
    rm -f "$state/bound"
    return 0
  fi
  ((status == 0)) || fail "usbferry on port $port ended with status $status after SIGTERM"
}

server_running() { [[ -s $state/servers ]]; }

server_pid() { # [port]
  awk -v port="${1:-3240}" '$2 == port {print $1}' "$state/servers"
}

# The server dies as by the hand of the kernel: nothing is given back by itself.
kill_server() { # [port]
  local pid
  step "kill the server"
  pid=$(server_pid "${1:-3240}")
  sed -i "/ ${1:-3240}\$/d" "$state/servers"
  kill -KILL "$pid"
  wait "$pid" 2> /dev/null || true
}

# After a detach the device must be free on the server's side: with usbferry the local driver has
# the device back at once; usbipd keeps the device with usbip-host until unbound.
released() { # busid, local driver
  case $server in
    usbferry) driver_on "$1" "$2" ;;
    usbipd) [[ $(< "/sys/bus/usb/devices/$1/usbip_status") == 1 ]] ;;
  esac
}

# The local driver must not have an exported device.
must_not_have() { # busid, local driver
  ! driver_on "$1" "$2" || fail "the local driver $2 still has $1 while it is attached"
}

# ---- The stock client -----------------------------------------------------------------------------

# The usbip tools come from the unpacked packages, with their libraries and their loader: with a
# newer kernel than this machine's system, tools and libraries are newer too.
libraries=$cache/root/lib/x86_64-linux-gnu
packaged=("$libraries/ld-linux-x86-64.so.2" --library-path "$libraries")
usbip_tool() { "${packaged[@]}" "$cache/root/usr/sbin/usbip" "$@"; }

# The busids shown by `usbip list -r`.
remote_busids() { # [port]
  usbip_tool --tcp-port "${1:-3240}" list -r 127.0.0.1 |
    sed -n 's/^ *\([0-9a-zA-Z._-]*\): .*([0-9a-f]\{4\}:[0-9a-f]\{4\})$/\1/p'
}

offered() { remote_busids | grep -qx -- "$1"; } # busid

# Attaches the busid with the stock tool; leaves the name of the new device in $attached.
attach() { # busid [port]
  local port=${2:-3240}
  step "usbip attach -b $1"
  vhci_before=$(echo $(vhci_devices))
  usbip_tool --tcp-port "$port" attach -r 127.0.0.1 -b "$1"
  wait_for 20 "the device of $1 on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
}

# Attaches the busid to the second controller; leaves the name of the new device in $attached.
attach_elsewhere() { # busid [port [which port of the controller]]
  local ports
  step "attach $1 to the second controller"
  vhci_before=$(echo $(vhci_devices))
  # Each controller has as many ports for USB 2 as for USB 3, numbered consecutively.
  ports=$(grep -c '^[hs]s' /sys/devices/platform/vhci_hcd.0/status)
  python3 "$vm/guest/attach_at.py" 127.0.0.1 "${2:-3240}" "$1" $((ports + ${3:-0}))
  wait_for 20 "the device of $1 on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
}

new_vhci_device_name() {
  local device
  for device in $(vhci_devices); do
    [[ " $vhci_before " == *" $device "* ]] || echo "$device"
  done
}
# Waits for the interfaces too, whose numbers do not start at 0 in every device.
new_vhci_device() {
  local device
  device=$(new_vhci_device_name)
  [[ -n $device && -n $(drivers_of "$device") ]]
}

# The port of a device on vhci, by `usbip port`.
port_of() { # device
  usbip_tool port 2> /dev/null |
    awk -v device="$1" '/^Port / {port = $2 + 0} $2 == "->" && $1 == device {print port}'
}

detach() { # device
  local port
  step "usbip detach $1"
  port=$(port_of "$1")
  [[ -n $port ]] || fail "usbip port does not show $1"
  usbip_tool detach -p "$port"
  wait_for 20 "$1 to go away" device_gone "$1"
}

device_gone() { [[ ! -e /sys/bus/usb/devices/$1 ]]; }

# ---- The client without a kernel ------------------------------------------------------------------

usbip_py() { # host, command...
  python3 "$vm/guest/usbip.py" "$@"
}

listed() { usbip_py 127.0.0.1 list | grep -q "^$1 "; } # busid

# Runs load.py, which imports the device and keeps URBs in flight; $load is its process.
start_load() { # command that runs it or '', argument of load.py...
  local within=$1
  shift
  step "load.py $*"
  start load $within python3 "$vm/guest/load.py" "$@"
  load=$started
  wait_until_said 30 load running
}

# Runs reads.py, which reads a disk until a read fails; $reads is its process.
start_reads() { # disk
  start reads python3 "$vm/guest/reads.py" "$1"
  reads=$started
  wait_until_said 30 reads reading
}

# Checks that the read under way has failed as on an unplugged disk.
reads_failed() {
  wait "$reads" 2> /dev/null || true
  [[ $(tail -n 1 "$state/reads") == @(EIO|ENODEV|ENXIO) ]] ||
    fail "the reader saw no error: $(< "$state/reads")"
}

# Starts to ask for the device repeatedly until an import succeeds; `came_free` has the result.
await_free() { # busid, seconds
  start await usbip_py 127.0.0.1 await "$1" $(($2 * patience))
  await=$started
  wait_until_said 20 await busy
}

# The seconds from a time (of EPOCHREALTIME) until the import; fails above the bound.
came_free() { # since, bound
  local bound=$(($2 * patience)) free elapsed
  wait "$await" || fail "not free again: $(tail -n 1 "$state/await")"
  free=$(sed -n 's/^free //p' "$state/await")
  elapsed=$(seconds_between "$1" "$free")
  note "importable again after $elapsed s"
  awk "BEGIN {exit !($elapsed <= $bound)}" ||
    fail "importable again only after $elapsed s, not $bound"
}

seconds_between() { awk "BEGIN {printf \"%.2f\", $2 - $1}"; }

# ---- What a leak would make grow --------------------------------------------------------------------

# Descriptors and threads of the server, and the memory left in usbfs.
server_holds() { # local device to ask usbfs by
  local pid descriptors threads
  pid=$(server_pid)
  descriptors=(/proc/"$pid"/fd/*)
  threads=(/proc/"$pid"/task/*)
  echo "${#descriptors[@]} descriptors, ${#threads[@]} threads, $(
    python3 "$vm/guest/usbfs.py" free "$1") bytes of usbfs free"
}

# Makes the C library of servers started from now on give back freed memory at once. Otherwise the
# library keeps a varying number of MiB for later, and a leak does not show. Nor may a small block
# keep freed memory before it: so a transfer of isochronous packets is a block of its own, too.
keep_no_freed_memory() {
  export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=0 MALLOC_MMAP_THRESHOLD_=4096
}

# Runs a command COUNT times, in eight parts, and fails if the least memory of the server after one of
# the last four parts is more, by the given KiB, than the least after one of the first four. A leak
# leaves no part out; memory that is in use at the moment, or lies before a block in use, goes again.
grow_less_than() { # KiB, count, command that takes a count
  local part memory least=(0 0)
  for part in {0..7}; do
    "$3" $(($2 / 8))
    memory=$(server_memory Anonymous)
    ((part % 4 && least[part / 4] <= memory)) || least[part / 4]=$memory
  done
  note "the server's memory: at least ${least[0]} KiB, later at least ${least[1]} KiB"
  ((least[1] - least[0] < $1)) ||
    fail "the server's memory grew from ${least[0]} KiB to ${least[1]} KiB"
}

# KiB: Anonymous (the server's own allocations), Rss (with files), counted page by page.
server_memory() { # field
  sed -n "s/^$1: *\([0-9]*\) kB$/\1/p" "/proc/$(server_pid)/smaps_rollup"
}

# ---- Tasks that are stuck ---------------------------------------------------------------------------

# Tasks in an uninterruptible sleep now.
sleeping_tasks() {
  local stat
  for stat in /proc/[0-9]*/task/*/stat; do
    read -r stat < "$stat" || continue
    [[ $stat != *') D '* ]] || echo "${stat%%)*})"
  done 2> /dev/null
}

# Tasks in an uninterruptible sleep now and three seconds later.
stuck_tasks() {
  sleeping_tasks | sort > "$state/sleeping"
  [[ -s $state/sleeping ]] || return 0
  sleep 3
  comm -12 "$state/sleeping" <(sleeping_tasks | sort)
}
