# What runs in pods, seen from this machine: through the cgroups, so that it works for a node that is cut as well, and fast.
# shellcheck shell=bash disable=SC2154

declare -A name_of

processes_of_pods() { # CGROUP-PATTERN: sets name_of[pid] for all processes in such cgroups and below
  local file pid
  name_of=()
  for file in $1/cgroup.procs $1/*/cgroup.procs; do
    [ -e "$file" ] || continue
    while read -r pid; do
      name_of[$pid]=$(< "/proc/$pid/comm") || unset "name_of[$pid]"
    done 2> /dev/null < "$file"
  done
}

# The kubelet names the log folder of a pod NAMESPACE_NAME_UID, and its cgroup pod UID.
pod_cgroups() { # NAMESPACE POD
  local folder uid group
  for folder in "$state"/node[0-9]*/log/"$1_$2"_*/; do
    uid=${folder%/} uid=${uid##*_}
    for group in "$ours"/node[0-9]*/kubepods/pod"$uid" "$ours"/node[0-9]*/kubepods/*/pod"$uid"; do
      [ ! -d "$group" ] || echo "$group"
    done
  done
}

parent_of() { local stat; stat=$(< "/proc/$1/stat") && stat=${stat##*) } && set -- $stat && echo "$2"; }

signal() { # NAMESPACE POD SIGNAL COMMAND-NAME: prints when it was sent, in milliseconds since 1970
  local group pid chosen=() seen=()
  [ $# = 4 ] || fail "usage: signal NAMESPACE POD SIGNAL COMMAND-NAME"
  for group in $(pod_cgroups "$1" "$2"); do
    processes_of_pods "$group"
    for pid in "${!name_of[@]}"; do
      seen+=("${name_of[$pid]}")
      # a child that it forked, to save for example, has the same name and is left alone, as by the kernel's OOM killer
      [ "${name_of[$pid]}" != "$4" ] || [ "${name_of[$(parent_of "$pid")]:-}" = "$4" ] || chosen+=("$pid")
    done
  done
  [ ${#chosen[@]} -gt 0 ] || fail "no process '$4' in pod $1/$2; there are: ${seen[*]:-none}"
  local now=${EPOCHREALTIME/[.,]/}
  kill -s "$3" "${chosen[@]}" || fail "could not send $3 to ${chosen[*]}"
  echo "$((now / 1000))"
}

pods() { # NODE: what runs there, as far as this machine can see, whatever the API server says
  local number folder name group pid
  number=$(need_node "${1:-}")
  for folder in "$state/node$number/log/"*/; do
    [ -d "$folder" ] || continue
    name=${folder%/} name=${name##*/} name=${name%_*}
    for group in "$ours/node$number"/kubepods/{,*/}pod"${folder: -37:36}"; do
      processes_of_pods "$group"
      for pid in "${!name_of[@]}"; do
        [ "${name_of[$pid]}" = pause ] || echo "${name/_//} ${name_of[$pid]} $pid"
      done
    done
  done | sort
}
