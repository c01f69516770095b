# Comparison of usbferry with the kernel's own exporter. Sourced by the scenarios that measure; the
# measurements go to $state/times, in lines for ratios.py.

# The processes of the server. usbipd only does the handshake; the listed kernel threads do the
# rest.
server_pids() {
  if [[ $server == usbipd ]]; then pgrep '^stub_[rt]x$'; else server_pid; fi
}

# Nanoseconds of processor time of processes, with their threads.
processor_time() { # pid...
  local pid
  for pid in "$@"; do cat "/proc/$pid/task/"*/schedstat; done | awk '{ sum += $1 } END { print sum }'
}

# Runs a command and records its time and the server's.
timed() { # by, device, load, bytes, command...
  local by=$1 device=$2 load=$3 bytes=$4 pids since before
  pids=$(server_pids)
  # The pids are words of their own.
  before=$(processor_time $pids)
  since=$(date +%s.%N)
  "${@:5}"
  awk -v since="$since" -v now="$(date +%s.%N)" -v before="$before" -v after="$(processor_time $pids)" \
    -v head="$device;$by;$load" -v bytes="$bytes" \
    'BEGIN { printf "%s;%.4f;%d;%.4f\n", head, now - since, bytes, (after - before) / 1e9 }' \
    >> "$state/times"
}

# A line for each kind of load: the medians, and the median of the rounds' ratios.
ratios() { # rounds
  local line lines
  cat "$state/times"
  lines=$(python3 "$vm/guest/ratios.py" usbipd "$1" < "$state/times") ||
    fail "not every round was timed"
  while read -r line; do note "$line"; done <<< "$lines"
}

# A process on each processor that never sleeps.
occupants=()
occupy_processors() {
  local processor
  for ((processor = 0; processor < $(nproc); processor++)); do
    taskset -c "$processor" sh -c 'while :; do :; done' &
    occupants+=($!)
  done
}

leave_processors() {
  ((${#occupants[@]})) || return 0
  kill "${occupants[@]}"
  wait "${occupants[@]}" 2> /dev/null || true
  occupants=()
}
