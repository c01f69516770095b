# A hook that sleeps for ten seconds while sound plays: every frame arrives, the hook's facts are
# right, no descriptor of the server is the hook's, and its program has ended well.
limit=150
servers=usbferry

source "$vm/guest/sound.sh"
source "$vm/guest/rules.sh"

scenario() {
  local busid reference
  busid=$(local_device SOUND)
  make_ramp 240000
  step "play on the local card"
  play "$busid" local
  reference=("$from" "$to")

  cat > "$state/hook" << 'HOOK'
#!/bin/sh
echo "$USBFERRY_EVENT $USBFERRY_NAME $USBFERRY_CLIENT $1" >> "$2"
for fd in /proc/$$/fd/*; do readlink "$fd"; done > "$2.open"
sleep 10
echo "done $USBFERRY_EVENT" >> "$2"
HOOK
  chmod +x "$state/hook"
  : > "$state/hook-said"
  write_rules << RULES
[[rule]]
busid = "$busid"
name = "speaker"
on-attach = ["$state/hook", "an argument", "$state/hook-said"]
on-detach = ["$state/hook", "another", "$state/hook-said"]
RULES
  serve_rules
  attach speaker
  wait_for 20 "the sound card of $attached" card_of "$attached"
  wait_for 10 "the hook" grep -q attach "$state/hook-said"
  step "play while the hook sleeps"
  ! grep -q done "$state/hook-said" || fail "the hook does not run any more"
  play "$attached" vhci
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" snd-usb-audio
  wait_for 60 "both hooks to end" hooks_have_ended
  stop_server
  compare_sound "${reference[@]}" "$from" "$to"
  # Pipes and files that the server itself was started with may be among the descriptors.
  ! grep -E '^(socket|anon_inode|/dev/bus/usb)' "$state/hook-said.open" > "$state/open" ||
    fail "the hook has descriptors of the server: $(xargs < "$state/open")"
  [[ $(< "$state/hook-said") == "attach speaker 127.0.0.1 an argument
done attach
detach speaker 127.0.0.1 another
done detach" ]] || fail "the hooks said: $(< "$state/hook-said")"
}

hooks_have_ended() { grep -q 'done detach' "$state/hook-said"; }
