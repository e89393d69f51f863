//! Claims about a real Kubernetes.
