# Instructions of a server, counted by counter.c. Sourced by scenarios with `counts=yes`.
#
#   count_server PID...       from now on these processes are the server
#   count LABEL COMMAND...    runs a command; what the server did meanwhile goes to the file
#                             $counted

orders=0

# The kernel's addresses for counter.c and counted.py. Modules may have come since the last time.
kernel_symbols() { grep -i ' t ' /proc/kallsyms | sort > "$state/kernel-symbols"; }

# The addresses of a function of the kernel: "FIRST BEHIND".
addresses_of() { # function
  awk -v name="$1" 'found { print found, $1; exit } $3 == name { found = $1 }' \
    "$state/kernel-symbols"
}

# The first address of a function, with the kind.
beginning_of() { # function, kind
  local ends
  ends=$(addresses_of "$1")
  [[ -n $ends ]] || fail "this kernel has no $1"
  printf '%s %x %s\n' "${ends% *}" "$((16#${ends% *} + 1))" "$2"
}

count_server() { # pid...
  local pid function program
  kernel_symbols
  {
    beginning_of __switch_to 0
    beginning_of asm_sysvec_apic_timer_interrupt 2
    beginning_of native_irq_return_iret 3
  } > "$state/ranges"
  : > "$state/maps"
  for pid in "$@"; do
    if function=$(kernel_thread_loop "$pid"); then
      echo "$(addresses_of "$function") 1" >> "$state/ranges"
    else
      cat "/proc/$pid/maps" >> "$state/maps"
      program=$(readlink "/proc/$pid/exe")
      awk -v program="$program" \
        '$2 ~ /x/ && $6 == program { split($1, ends, "-"); print ends[1], ends[2], 1 }' \
        "/proc/$pid/maps" >> "$state/ranges"
    fi
  done
}

# The function in which a thread of the kernel's exporter loops, if the process is one.
kernel_thread_loop() { # pid
  case $(< "/proc/$1/comm") in
    stub_rx) echo stub_rx_loop ;;
    stub_tx) echo stub_tx_loop ;;
    *) return 1 ;;
  esac
}

# The counts so far, in the file $counts.
order_counts() {
  counts=$run/counter/$orders.out
  cp "$state/ranges" "$run/counter/$orders.part"
  mv "$run/counter/$orders.part" "$run/counter/$orders.go"
  wait_for 30 "the counter" test -e "$counts"
  orders=$((orders + 1))
}

count() { # label, command...
  local before
  order_counts
  before=$counts
  "${@:2}"
  order_counts
  python3 "$vm/guest/counted.py" "$1" "$state/kernel-symbols" "$state/maps" "$before" "$counts" \
    >> "$counted" || fail "the counts of $1: see the log"
}
