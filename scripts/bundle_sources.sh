# To be sourced by scripts/bundle and scripts/bootshim: tells whether a bundle is of the sources as they are.

# Prints of every file that a bundle is made of the path, inode, size and time of its last change of any kind. Any edit, and
# any copy of the checkout, gives another list, whichever way clocks were set meanwhile. To hash what the files hold would
# take longer than the bundle saves. To be called in a pipe or a subshell only: it ends there.
bundle_sources() {
  CDPATH= cd -- "$1"
  exec find src package.json deno.json deno.lock node_modules/.lock-stamp scripts/bundle scripts/bundle.ts \
    ! -type d -printf '%p %i %s %C@\n' 2>/dev/null
}

# Sets `bundle` to the folder of the bundle of the sources as they are; empty when there is none.
find_bundle() {
  local name
  bundle=
  read -r name 2>/dev/null < "$1/.cache/bundle/current" || return 0
  if bundle_sources "$1" | cmp -s - "$1/.cache/bundle/$name/sources"; then bundle=$1/.cache/bundle/$name; fi
}
