# Comparing usbferry with the kernel's own exporter. Sourced by the scenarios that measure; what is
# measured goes to $state/times, in lines as ratios.py wants them.

# What does the server's work. usbipd only shakes hands; these threads of the kernel do the rest.
server_pids() {
  if [[ $server == usbipd ]]; then pgrep '^stub_[rt]x$'; else server_pid; fi
}

# Nanoseconds of processor time that processes have had, their threads included.
processor_time() { # pid...
  local pid
  for pid in "$@"; do cat "/proc/$pid/task/"*/schedstat; done | awk '{ sum += $1 } END { print sum }'
}

# Runs a command and notes how long it took, and the server with it.
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

# A line for each kind of load: the medians, and that of the rounds' ratios.
ratios() { # rounds
  local line lines
  cat "$state/times"
  lines=$(python3 "$vm/guest/ratios.py" usbipd "$1" < "$state/times") ||
    fail "not every round was timed"
  while read -r line; do note "$line"; done <<< "$lines"
}
