# The end of it: all that "up" made, or began to make, goes.
# shellcheck shell=bash disable=SC2154

# The kubelet sets these for the whole machine.
settings=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

note_settings() {
  local name
  for name in "${settings[@]}"; do echo "$name=$(sysctl -n "$name")"; done > "$state/settings"
}

mounts_below() { awk -v folder="$1/" 'index($2, folder) == 1 {print $2}' /proc/mounts | tac; }

unmount_all() {
  local path
  for path in $(mounts_below "$state"); do umount "$path" 2> /dev/null || umount -l "$path"; done
  # a mount that was cut short can leave its loop device
  losetup -nO NAME,BACK-FILE | awk -v folder="$state/" 'index($2, folder) == 1 {print $1}' | xargs -r losetup -d
}

forget_containers() { # what containerd, its shims, CNI and the kubelet keep outside of the state folder
  local file
  for file in "$state"/node*/state/io.containerd.runtime.v2.task/k8s.io/*/address; do
    [ ! -e "$file" ] || sed 's#^unix://##' "$file" | xargs rm -f
  done
  rm -f /var/lib/cni/results/redoubt-node*
  for file in /var/log/containers/*; do
    [[ $(readlink "$file") != "$state"/* ]] || rm -f "$file"
  done
  rmdir -p --ignore-fail-on-non-empty /run/containerd/s /var/lib/cni/results /var/log/containers 2> /dev/null || true
}

down() {
  local folder
  finish "$ours/system" # first what could start more
  finish "$ours"
  if [ -d "$state" ]; then
    forget_containers
    unmount_all
  fi
  unwire
  for folder in "$ours" /sys/fs/cgroup/*/redoubt; do
    [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} +
  done
  [ ! -e "$state/settings" ] || xargs -r sysctl -qw < "$state/settings"
  rm -rf --one-file-system "$state"
}
