//! Tests that need no Kubernetes: pure ones, and those against real engine processes on loopback.
