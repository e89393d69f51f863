//! Addresses of Services: connections are passed on to a pod that the Service selects, as kube-proxy does it.
//!
//! The address of a node's own Service is where its pod listens, so that one needs nothing, until the Service is made again with
//! another address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use rand::seq::IndexedRandom as _;
use redoubt::api::names;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::kubelet::Kubelet;

/// Between two tries to listen at an address that is taken.
const RETRY: Duration = Duration::from_millis(50);

/// The listeners by address.
#[derive(Default)]
pub struct Services(Mutex<BTreeMap<String, Vec<JoinHandle<()>>>>);

impl Services {
    /// Ends the listeners of an address: a pod listens there itself from now on.
    pub async fn release(&self, address: &str) {
        let listeners = self.0.lock().unwrap().remove(address);
        for listener in listeners.into_iter().flatten() {
            listener.abort();
            let _ = listener.await;
        }
    }
}

/// Follows the Services of our layers.
pub async fn watch_services(kubelet: Arc<Kubelet>) {
    let api: Api<Service> = Api::all(kubelet.client.clone());
    let mut events = watcher(api, watcher::Config::default().labels(names::LABEL_LAYER)).default_backoff().boxed();
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(service) | Event::InitApply(service)) => {
                let Some(address) = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()) else { continue };
                if address.parse::<std::net::IpAddr>().is_err() {
                    continue;
                }
                addresses.insert(service.uid().unwrap(), address.clone());
                if is_forwarded(&kubelet, &service, &address) {
                    kubelet.services.release(&address).await;
                    let listeners = listen(&kubelet, &service, &address);
                    kubelet.services.0.lock().unwrap().insert(address, listeners);
                }
            }
            Ok(Event::Delete(service)) => {
                if let Some(address) = addresses.remove(&service.uid().unwrap()) {
                    kubelet.services.release(&address).await;
                }
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => println!("kubelet: watching Services: {error}"),
        }
    }
}

/// A node's own Service leads to the pod directly, unless that listens at another address.
fn is_forwarded(kubelet: &Kubelet, service: &Service, address: &str) -> bool {
    let Some(pod) = service.labels().get(names::LABEL_NODE).map(|_| format!("{}-0", service.name_any())) else {
        return true;
    };
    let running = kubelet.running.lock().unwrap();
    running.get(&(service.namespace().unwrap(), pod)).is_some_and(|running| running.address != address)
}

/// A layer's Services are deleted before its pods have ended: until then a new Service may have an address where one still listens.
async fn listener(address: &str, port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((address, port)).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

fn listen(kubelet: &Arc<Kubelet>, service: &Service, address: &str) -> Vec<JoinHandle<()>> {
    let mut listeners = Vec::new();
    for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
        let target = match port.target_port {
            Some(IntOrString::Int(target)) => target,
            _ => port.port,
        };
        let number = u16::try_from(port.port).unwrap();
        let (kubelet, service, address) = (Arc::clone(kubelet), service.clone(), address.to_owned());
        listeners.push(tokio::spawn(async move {
            let listener = listener(&address, number).await;
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(pod) = target_of(&kubelet, &service) else { continue };
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect((pod.as_str(), u16::try_from(target).unwrap())).await {
                        // Either end may close at any time.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        }));
    }
    listeners
}

/// A pod that the Service selects and that is ready, or need not be.
fn target_of(kubelet: &Kubelet, service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    let also_unready = spec.publish_not_ready_addresses == Some(true);
    let running = kubelet.running.lock().unwrap();
    let selected: Vec<&String> = running
        .iter()
        .filter(|((namespace, _), pod)| {
            Some(namespace.as_str()) == service.metadata.namespace.as_deref()
                && (pod.ready || also_unready)
                && selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
        })
        .map(|(_, pod)| &pod.address)
        .collect();
    selected.choose(&mut rand::rng()).map(|address| (*address).clone())
}
