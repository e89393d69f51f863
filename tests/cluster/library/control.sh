# The control plane: certificates, etcd, API server, controllers, scheduler, volumes, DNS.
# shellcheck shell=bash disable=SC2154

certify() { # NAME SUBJECT NAMES
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "$2" 2> /dev/null |
    openssl x509 -req -CA ca.crt -CAkey ca.key -days 365 -out "$1.crt" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2> /dev/null
}

write_kubeconfig() { # CERTIFICATE FILE
  cat > "$2" <<YAML
apiVersion: v1
kind: Config
current-context: redoubt
clusters: [{name: redoubt, cluster: {server: "https://$control:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: redoubt, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: redoubt, context: {cluster: redoubt, user: redoubt}}]
YAML
}

identities() { # NODES
  local i name
  cd "$state/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=redoubt-cluster -days 365 2> /dev/null
  openssl genrsa -out serviceaccount.key 2048 2> /dev/null
  certify apiserver /CN=kube-apiserver "IP:$control,IP:127.0.0.1,IP:$api_service,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  certify aggregator /CN=aggregator DNS:aggregator
  certify admin /O=system:masters/CN=admin DNS:admin
  certify controllers /CN=system:kube-controller-manager DNS:controllers
  certify scheduler /CN=system:kube-scheduler DNS:scheduler
  certify proxy /CN=system:kube-proxy DNS:proxy
  for i in $(seq "$1"); do
    certify "node$i" "/O=system:nodes/CN=system:node:node$i" "DNS:node$i,IP:$(node_address "$i")"
  done
  write_kubeconfig admin "$KUBECONFIG"
  for name in controllers scheduler proxy $(seq -f node%g "$1"); do write_kubeconfig "$name" "$name.yaml"; done
  cd "$state"
}

api_server() {
  start etcd rdt "$bin/kubenode" etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://$etcd:2379" --advertise-client-urls "http://$etcd:2379" --listen-peer-urls "http://$etcd:2380"
  start apiserver rdt "$bin/kubenode" kube-apiserver --etcd-servers "http://$etcd:2379" \
    --bind-address "$bind" --advertise-address "$control" --secure-port 6443 --service-cluster-ip-range "$services" \
    --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt \
    --kubelet-client-certificate pki/admin.crt --kubelet-client-key pki/admin.key --kubelet-preferred-address-types InternalIP \
    --service-account-key-file pki/serviceaccount.key --service-account-signing-key-file pki/serviceaccount.key \
    --service-account-issuer https://kubernetes.default.svc --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --allow-privileged --audit-policy-file "$here/audit.yaml" --audit-log-path "$state/log/audit" \
    --requestheader-client-ca-file pki/ca.crt --requestheader-allowed-names aggregator --requestheader-username-headers X-Remote-User \
    --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file pki/aggregator.crt --proxy-client-key-file pki/aggregator.key
  wait_for 120 "the API server" kubectl get --raw /readyz
}

control_plane() {
  api_server
  # Of every Service there are endpoint slices; the older form of the same is a tenth of the API server's requests.
  start controllers rdt "$bin/kubenode" kube-controller-manager --kubeconfig pki/controllers.yaml --leader-elect=false \
    --controllers '*,-endpoints-controller,-endpointslice-mirroring-controller' \
    --service-account-private-key-file pki/serviceaccount.key --root-ca-file pki/ca.crt --use-service-account-credentials \
    --cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key --node-monitor-grace-period 16s
  start scheduler rdt "$bin/kubenode" kube-scheduler --kubeconfig pki/scheduler.yaml --leader-elect=false
  start volumes rdt "$bin/kubenode" volumes --kubeconfig "$KUBECONFIG" --root "$state/volumes"
  printf '.:53 {\n  errors\n  ready\n  kubernetes cluster.local in-addr.arpa {\n    kubeconfig %s\n    ttl 5\n  }\n  cache 5\n}\n' "$KUBECONFIG" > Corefile
  start coredns rdt "$bin/coredns" -conf "$state/Corefile"
  # Its own name would make it wait half a minute for a node of that name. It is told that it is node 1, which counts only
  # for services that prefer endpoints of their own node.
  proxy rdt node1
  kubectl apply -f - > /dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: $dns, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [$control]}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: volumes.kubenode.dev
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
---
# On two cores a kubelet at times hears of a new pod before the node authorizer does, is refused the pod's volume claim or Secret,
# and asks again some 13 s later. What the role adds to that of the authorizer is the same for pods of other nodes.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubelets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: system:nodes}]
YAML
}

proxy() { # NAMESPACE NODE-NAME: a kube-proxy
  cat > "$state/proxy-$1.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
hostnameOverride: $2
oomScoreAdj: 0
clientConnection: {kubeconfig: $state/pki/proxy.yaml}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  start "proxy-$1" "$1" "$bin/kubenode" kube-proxy --config "$state/proxy-$1.yaml"
}

answers() { timeout 1 bash -c ": < /dev/tcp/$1/$2"; } # ADDRESS PORT

services_answer() { answers "$api_service" 443 && answers "$dns" 53 && kubectl get serviceaccount default; }

writes() { # NAMESPACE:NAME of a service account: VERB PATH CODE of each write that the audit log has
  { grep -F "\"username\":\"system:serviceaccount:$1\"" "$state/log/audit" || true; } |
    sed -nE '/"verb":"(create|update|patch|delete|deletecollection)"/ {
      /\/leases[\/?]|\/leases"|dryRun/d
      s/.*"requestURI":"([^"]*)".*"verb":"([a-z]*)".*"code":([0-9]+).*/\2 \1 \3/p
    }'
}
