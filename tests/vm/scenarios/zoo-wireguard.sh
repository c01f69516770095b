# The WireGuard of docs/security.md with the kernel's own WireGuard: outside of the guest
# `tests/recipes/run` may have to do with wireguard-go.
limit=400
servers=usbferry
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program openssl sshd stunnel tcpdump wg wg-quick
  local load=${usbferry%/*}/usbferry-load
  [[ -x $load ]] || fail "there is no $load: \`cargo build --release -p usbferry-load\`"
  modprobe -a overlay veth wireguard
  ip link add tried type wireguard || fail "the kernel has no WireGuard"
  ip link delete tried
  local recipe
  step "tests/recipes/run WireGuard"
  USBFERRY=$usbferry USBFERRY_LOAD=$load PATIENCE=$((30 * patience)) \
    "$vm/../recipes/run" WireGuard > "$state/recipes" 2>&1 || fail "$(grep -m 1 FAIL "$state/recipes")"
  while read -r recipe; do note "$recipe"; done < "$state/recipes"
}
