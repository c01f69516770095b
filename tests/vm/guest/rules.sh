# Servers with a file of rules. Sourced by the scenarios of rules.

rules=$state/rules.toml

# Writes the file of rules: standard input.
write_rules() { cat > "$rules"; }

# Runs `usbferry serve --config` with the file, and further arguments.
serve_rules() { # argument...
  start_usbferry 3240 --config "$rules" "$@"
}

# All names of the gadget of serve_programmer for an import.
programmer_names=(programmer 0525:a4a0 0525:a4a0:SOURCESINK serial:SOURCESINK)

# Plugs a gadget of gadget.sh in, and exports the gadget under the name "programmer".
serve_programmer() {
  plug_gadget high-speed SourceSink
  write_rules << 'RULES'
[[rule]]
id = "0525:a4a0"
name = "programmer"
RULES
  serve_rules
}

# How many lines of the server's log have the text so far.
said_by_server() { # text
  grep -cF -- "$1" "$log/$name.server.log" || true
}

# Has the server read its file again, and waits for the line of the log with the text.
reload_rules() { # text
  local before
  before=$(said_by_server "$1")
  kill -HUP "$(server_pid)"
  wait_for 20 "the server to say \"$1\"" said_again "$1" "$before"
}
said_again() { (($(said_by_server "$1") > $2)); }

serial_of() { cat "/sys/bus/usb/devices/$1/serial"; } # device
