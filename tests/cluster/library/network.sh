# The namespaces: "rdt" is the control plane and the switch, "rdt-nN" is node N. This machine has a port on the switch too.
# shellcheck shell=bash disable=SC2154

in_namespace() { local name=$1; shift; nsenter --net="/run/netns/$name" "$@"; }

forwarding() { # NAMESPACE
  # A router that sends a packet back out where it came in tells the sender of a shorter way. The sender would then keep to
  # the node that served it, and not notice that the node was cut.
  in_namespace "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
}

wire() { # NODES
  local i
  findmnt -n /run/netns > /dev/null || touch "$state/made-run-netns" # the first "ip netns add" mounts it
  ip netns add rdt
  forwarding rdt
  ip -n rdt link set lo up
  ip -n rdt link add switch type bridge
  ip -n rdt addr add "$control/24" dev switch
  ip -n rdt link set switch up
  ip -n rdt route add "$services" dev switch # kube-proxy sends them on; without a route nothing gets that far
  ip link add rdt-host type veth peer name host netns rdt
  ip addr add "$host_address/24" dev rdt-host
  ip link set rdt-host up
  ip -n rdt link set host master switch up
  # through the control plane and not through a node: services must answer whichever node is cut
  ip route add "$services" via "$control"
  for i in $(seq "$1"); do wire_node "$i"; done
  for i in $(seq "$1"); do route_pods "$i" "$1"; done
}

wire_node() { # NODE
  local name=rdt-n$1
  ip netns add "$name"
  forwarding "$name"
  ip -n "$name" link set lo up
  ip -n rdt link add "n$1" type veth peer name eth0 netns "$name"
  ip -n rdt link set "n$1" master switch up
  ip -n "$name" addr add "$(node_address "$1")/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default via "$control"
}

route_pods() { # NODE NODES: how everyone else reaches the pods of a node
  local range address j
  range=$(pod_range "$1") address=$(node_address "$1")
  ip route add "$range" via "$address"
  ip -n rdt route add "$range" via "$address"
  for j in $(seq "$2"); do
    [ "$1" = "$j" ] || ip -n "rdt-n$j" route add "$range" via "$address"
  done
}

unwire() { # also what a run that was cut short has left
  local name
  if ip link show rdt-host > /dev/null 2>&1; then ip link del rdt-host; fi
  for name in /run/netns/rdt /run/netns/rdt-n[0-9]*; do
    [ ! -e "$name" ] || ip netns del "${name##*/}"
  done
  if [ -e "$state/made-run-netns" ] && [ -z "$(ls -A /run/netns 2> /dev/null)" ]; then
    umount /run/netns 2> /dev/null || true
    rmdir /run/netns 2> /dev/null || true
  fi
}

is_cut() { ! ip -n rdt -o link show "n$1" | grep -q ,UP; }
