# Where everything is, and the few things that every other file uses.
# shellcheck shell=bash disable=SC2034

state=${REDOUBT_CLUSTER_STATE:-/var/lib/redoubt-cluster}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/redoubt-cluster
bin=${REDOUBT_CLUSTER_BIN:-$cache/bin}
images=${REDOUBT_CLUSTER_IMAGES:-$cache/images}
version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$here/kubenode/go.mod")

host_address=10.89.0.254 control=10.89.0.1 bind=0.0.0.0 etcd=127.0.0.1 services=10.96.0.0/16 api_service=10.96.0.1 dns=10.96.0.10
node_address() { echo "10.89.0.$((10 + $1))"; }
pod_range() { echo "10.244.$1.0/24"; }

# The cgroup tree that tells which processes are ours: one hierarchy of cgroup v1, or the only one of v2.
hierarchy=/sys/fs/cgroup/freezer
[ -d "$hierarchy" ] || hierarchy=/sys/fs/cgroup
ours=$hierarchy/redoubt

user_kubeconfig=${KUBECONFIG:-}
[ "$user_kubeconfig" != "$state/kubeconfig" ] || user_kubeconfig=
export KUBECONFIG=$state/kubeconfig

say() { echo "cluster: $*"; }
fail() { echo "cluster: $*" >&2; exit 1; }
kubectl() { "$bin/kubectl" "$@"; }
containers_of() { local node=$1; shift; ctr -a "$state/node$node/containerd.sock" -n k8s.io "$@"; }

nodes() { # the numbers of the nodes that there are
  local home
  for home in "$state"/node[0-9]*; do [ ! -d "$home" ] || echo "${home##*/node}"; done | sort -n
}

need_node() { # NODE: prints its number, or ends with what is wrong
  local number=${1#node}
  [[ $number =~ ^[0-9]+$ && -d $state/node$number ]] || fail "no node '$1'; there are: $(nodes | sed 's/^/node/' | paste -sd' ')"
  echo "$number"
}

is_up() { # the mark tells a whole start from one that was cut short, the answer one that lives from what a dead machine left
  [ -e "$state/complete" ] && kubectl get --raw /readyz > /dev/null 2>&1
}

need_up() { is_up || fail "not up; start it with: $0 up"; }

wait_for() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" > /dev/null 2>&1; do
    ((SECONDS < end)) || fail "$what did not come up in time; see $state/log"
    sleep 0.2
  done
}

processes_in() { # CGROUP: the ids of the processes in it and below
  find "$1" -name cgroup.procs -exec cat {} + 2> /dev/null | sort -un || true
}

start() { # NAME NAMESPACE COMMAND...: a process that lives on in a cgroup of its own, which it joins before it becomes COMMAND
  local name=$1 group=$ours/system/$1 network=/run/netns/$2; shift 2
  mkdir -p "$group"
  # Memory is plentiful here and processors are not: collecting garbage took a sixth of the API server's time.
  # shellcheck disable=SC2016
  GOGC=400 setsid bash -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group" nsenter --net="$network" "$@" \
    >> "$state/log/$name" 2>&1 < /dev/null 9>&- &
}

running() { [ -n "$(processes_in "$ours/system/$1")" ]; }

finish() { # CGROUP: ends every process in it and below
  local end=$((SECONDS + 30)) pids
  find "$1" -name freezer.state -exec sh -c 'for file; do echo THAWED > "$file"; done' thaw {} + 2> /dev/null || true
  while pids=$(processes_in "$1") && [ -n "$pids" ]; do
    ((SECONDS < end)) || fail "these processes do not end: $(echo "$pids" | paste -sd' ')"
    xargs -r kill -KILL <<< "$pids" 2> /dev/null || true
    sleep 0.05
  done
}
