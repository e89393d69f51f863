//! What the operator is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Arguments of `redoubt operator`.
#[derive(Clone, Debug, Args)]
pub struct OperatorArguments {
    /// Kubeconfig file; without it, the pod's service account or the usual places.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator itself: its Lease and its root key are there.
    #[arg(long, env = "REDOUBT_NAMESPACE", default_value = "redoubt-system")]
    pub namespace: String,
    /// Watch this namespace only; without it, all.
    #[arg(long, env = "REDOUBT_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Engine image of layers that name none. Recorded for each layer at its creation: a change affects new layers only.
    #[arg(long, env = "REDOUBT_DEFAULT_ENGINE_IMAGE", default_value = "docker.io/valkey/valkey:8.1")]
    pub default_engine_image: String,
    /// Engine images that layers may name: each begins with one of these, up to a '/', ':' or '@', or is one of them. Without any,
    /// every image. Images that layers were made with, and the default one, stay allowed.
    #[arg(long, env = "REDOUBT_ALLOWED_IMAGES", value_name = "PREFIX", value_delimiter = ',')]
    pub allowed_images: Vec<String>,
    /// Refuse new uses that have a layer of their own (`spec.layer.dedicated`, or no layer). Those that are served stay.
    #[arg(long, env = "REDOUBT_FORBID_DEDICATED")]
    pub forbid_dedicated: bool,
    /// Image that the pods copy their agent from: this operator's own. Recorded like the engine image.
    #[arg(long, env = "REDOUBT_AGENT_IMAGE")]
    pub agent_image: String,
    /// Domain of the cluster's Services, which bindings name: `cluster.local`. Without it, what this pod's `/etc/resolv.conf` says.
    #[arg(long, env = "REDOUBT_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Name of this replica in the Lease; without it, the host name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Seconds that a leader is respected after its last sign of life, 3 to 60. Shorter: a leader that is lost with its node is
    /// replaced sooner. Longer: one that an API server answers slowly keeps its place.
    #[arg(long, env = "REDOUBT_LEASE_DURATION", default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=60))]
    pub lease_duration: u64,
    /// Layers that are looked after at the same time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: u16,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    #[arg(long, env = "REDOUBT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}
