# A node: a containerd, a kubelet and a kube-proxy in a network namespace.
# shellcheck shell=bash disable=SC2154

node_cgroups() { # NODE: an own subtree for each node
  local controller file
  if [ "$hierarchy" = /sys/fs/cgroup ]; then # v2: the kubelet enables the controllers below what is given to it
    mkdir -p "$ours/node$1"
    for file in /sys/fs/cgroup "$ours"; do echo "+cpu +cpuset +memory +pids" > "$file/cgroup.subtree_control"; done
    return
  fi
  for controller in /sys/fs/cgroup/*/; do
    [ -e "$controller/cgroup.procs" ] || continue
    mkdir -p "$controller/redoubt/node$1" 2> /dev/null || continue
    for file in cpuset.cpus cpuset.mems; do # v1 leaves these empty, and then nothing can run there
      [ -e "$controller/$file" ] || continue
      cat "$controller/$file" > "$controller/redoubt/$file"
      cat "$controller/$file" > "$controller/redoubt/node$1/$file"
    done
  done
}

network_configuration() { # NODE
  cat <<JSON
{"cniVersion": "0.4.0", "name": "redoubt-node$1", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/node$1/addresses", "ranges": [[{"subnet": "$(pod_range "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

containerd_configuration() { # NODE: every path is below the state folder, so that "down" finds it
  local home=$state/node$1
  cat <<TOML
version = 2
root = "$home/containerd"
state = "$home/state"
[grpc]
address = "$home/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$home/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
netns_mounts_under_state_dir = true
# where OOM scores cannot be lowered, containers would not start without this
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$home/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "$home/runc"
TOML
}

kubelet_configuration() { # NODE
  local home=$state/node$1
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$home/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /redoubt/node$1
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: AlwaysAllow}
tlsCertFile: $state/pki/node$1.crt
tlsPrivateKeyFile: $state/pki/node$1.key
clusterDNS: [$dns]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
podLogsDir: $home/log
volumePluginDir: $home/plugins
syncFrequency: 10s
nodeStatusUpdateFrequency: 4s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
YAML
}

node() { # NODE
  local home=$state/node$1
  mkdir -p "$home/cni"
  node_cgroups "$1"
  network_configuration "$1" > "$home/cni/pods.conflist"
  containerd_configuration "$1" > "$home/containerd.toml"
  kubelet_configuration "$1" > "$home/kubelet.yaml"
  start "containerd$1" "rdt-n$1" containerd -c "$home/containerd.toml"
  wait_for 60 "containerd of node$1" containers_of "$1" version
  kubelet "$1"
  proxy "rdt-n$1" "node$1"
}

kubelet() { # NODE
  start "kubelet$1" "rdt-n$1" "$bin/kubenode" kubelet --config "$state/node$1/kubelet.yaml" --kubeconfig "$state/pki/node$1.yaml" \
    --hostname-override "node$1" --node-ip "$(node_address "$1")" --node-labels "topology.kubernetes.io/zone=zone$1" \
    --root-dir "$state/node$1/kubelet" --cert-dir "$state/node$1/pki"
}

nodes_ready() { [ "$(kubectl get nodes --no-headers | grep -cw Ready)" = "$1" ]; }
