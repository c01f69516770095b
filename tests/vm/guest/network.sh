# A client with a network of its own, which can be cut or made slow and lossy. Sourced by scenarios.

server_address=10.77.0.1
client_address=10.77.0.2

make_network() {
  step "make a network for the client"
  modprobe veth
  ip netns add client
  ip link add server-end type veth peer name client-end netns client
  ip address add "$server_address/24" dev server-end
  ip link set server-end up
  in_network ip address add "$client_address/24" dev client-end
  in_network ip link set client-end up
}

in_network() { ip netns exec client "$@"; }

# Exports local devices to the client's network and to this machine.
serve_network() { # busid...
  local busid arguments=(--listen "$server_address:3240" --listen 127.0.0.1:3240)
  arguments+=(--allow "$client_address/32")
  for busid in "$@"; do arguments+=(--device "$busid"); done
  start_usbferry 3240 "${arguments[@]}"
}

# The network goes without a word: neither end gets a FIN or an error from the other.
cut_network() { ip link set server-end down; }
mend_network() { ip link set server-end up; }

remove_network() {
  ip link delete server-end
  ip netns delete client
}
