# What the machine needs: Debian packages, and the binaries that are built once and kept outside the tree.
# shellcheck shell=bash disable=SC2154

# a file or command that tells that a package is there, and the package
requirements=(
  containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables conntrack:conntrack
  ip:iproute2 openssl:openssl mmdebstrap:mmdebstrap python3:python3 mkfs.xfs:xfsprogs losetup:mount nsenter:util-linux
  sysctl:procps cc:gcc /usr/include/stdlib.h:libc6-dev curl:curl
)

packages() {
  local requirement missing=()
  [ "$(id -u)" = 0 ] || fail "must run as root: it makes network namespaces, mounts and cgroups"
  for requirement in "${requirements[@]}"; do
    command -v "${requirement%%:*}" > /dev/null || [ -e "${requirement%%:*}" ] || missing+=("${requirement##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || fail "these Debian packages are missing, and there is no apt-get to install them: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq > /dev/null || fail "apt-get update failed"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null ||
    fail "apt-get could not install: ${missing[*]}"
}

build() { # only what changed since: Go would take seconds even to find that nothing did
  local stamp
  stamp=$( (declare -f build build_go; cd "$here" && find kubenode pause.c -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum)
  [ "$stamp" != "$(cat "$bin/stamp" 2> /dev/null)" ] || return 0
  command -v go > /dev/null || fail "Go is needed to build Kubernetes; see the go line of kubenode/go.mod for its version"
  say "building Kubernetes $version, CoreDNS and helm (5 minutes the first time)"
  mkdir -p "$bin"
  build_go
  ln -sf kubenode "$bin/kubectl"
  cc -Os -static -s -o "$bin/pause" "$here/pause.c"
  echo "$stamp" > "$bin/stamp"
}

build_go() {
  local minor=${version#v1.} package flags=""
  minor=${minor%%.*}
  # kubelet and API server report, and compare, the version that is stamped into them
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
  done
  # What it costs to compile, for client-go in seconds of a processor: 320; 270 where the compiler collects garbage only when memory
  # is scarce; 238 without what debuggers read; 194 without inlining; a seventh less where each compiler keeps to one thread,
  # because others run beside it. Kubernetes itself, most of which is generated, goes without inlining, but not what it stands on.
  (cd "$here/kubenode" && GOGC=off GOMEMLIMIT=2GiB CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath \
    -gcflags 'all=-dwarf=false -c=1' -gcflags 'k8s.io/...=-dwarf=false -c=1 -l' \
    -ldflags "-s -w $flags" -o "$bin/" ./cmd/... helm.sh/helm/v4/cmd/helm) ||
    fail "the build failed"
}
