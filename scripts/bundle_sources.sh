# To be sourced by scripts/bundle and scripts/bootshim: tells whether a bundle is of the sources as they are.

# Prints of every file that a bundle is made of the path, inode, size and time of its last change of any kind. Any edit, and
# any copy of the checkout, gives another list, whichever way clocks were set meanwhile. To hash what the files hold would
# take longer than the bundle saves.
bundle_sources() {
  cd "$1" && find src package.json deno.json deno.lock node_modules/.lock-stamp scripts/bundle scripts/bundle.ts \
    ! -type d -printf '%p %i %s %C@\n' 2>/dev/null
}

# Sets `bundle` to the folder of the bundle of the sources as they are; empty when there is none.
find_bundle() {
  local name=
  bundle=
  [ -f "$1/.cache/bundle/current" ] || return 0
  read -r name < "$1/.cache/bundle/current" || true
  if bundle_sources "$1" | cmp -s - "$1/.cache/bundle/$name/sources"; then bundle=$1/.cache/bundle/$name; fi
}
