//! A kubelet of the tests' own, for all pods of our layers: it binds each to a Kubernetes node that does not exist and runs it as
//! a process ([`crate::pod`]). No image is pulled and no memory limit enforced: that takes a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use redoubt::api::names;
use tokio::sync::watch;

use crate::engine_process::{Engine, engines};
use crate::services::Services;

/// A pod by namespace and name.
pub type PodName = (String, String);

/// A pod whose process runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Process id of its agent, which is also that of its process group.
    pub agent: u32,
    /// Where it listens.
    pub address: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Whether it passes its readiness probe.
    pub ready: bool,
    /// Folders of its volumes by name; `log` is that in which its log is.
    pub folders: BTreeMap<String, PathBuf>,
}

/// The kubelet.
pub struct Kubelet {
    /// The API server.
    pub client: Client,
    /// Folder of the control plane: the process groups are noted there.
    folder: PathBuf,
    engines: Vec<Engine>,
    /// Pods that run.
    pub running: Mutex<BTreeMap<PodName, Running>>,
    held: watch::Sender<BTreeSet<PodName>>,
    /// Namespaces whose claim has ended: no pod of theirs runs any more.
    abandoned: watch::Sender<BTreeSet<String>>,
    /// Addresses of Services.
    pub services: Services,
}

impl Kubelet {
    /// Starts it in the runtime that calls this.
    pub fn run(client: &Client, folder: PathBuf) -> Arc<Self> {
        let kubelet = Arc::new(Self {
            client: client.clone(),
            folder,
            engines: engines(),
            running: Mutex::default(),
            held: watch::channel(BTreeSet::new()).0,
            abandoned: watch::channel(BTreeSet::new()).0,
            services: Services::default(),
        });
        tokio::spawn(Arc::clone(&kubelet).watch_pods());
        tokio::spawn(crate::services::watch_services(Arc::clone(&kubelet)));
        kubelet
    }

    async fn watch_pods(self: Arc<Self>) {
        let api: Api<Pod> = Api::all(self.client.clone());
        // A pod that loses its labels runs on.
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut known: BTreeMap<String, watch::Sender<Pod>> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                    let uid = pod.uid().unwrap();
                    if let Some(newest) = known.get(&uid) {
                        newest.send_replace(pod);
                    } else if pod.labels().contains_key(names::LABEL_LAYER) {
                        let (newest, changes) = watch::channel(pod);
                        known.insert(uid, newest);
                        tokio::spawn(crate::pod::live(Arc::clone(&self), changes));
                    }
                }
                Ok(Event::Delete(pod)) => drop(known.remove(&pod.uid().unwrap())),
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => println!("kubelet: watching pods: {error}"),
            }
        }
    }

    /// Holds a pod back: as long as this lasts, none of this name is started.
    pub fn hold(&self, namespace: &str, pod: &str) {
        self.held.send_modify(|held| {
            held.insert((namespace.to_owned(), pod.to_owned()));
        });
    }

    /// Ends [`Self::hold`].
    pub fn release(&self, namespace: &str, pod: &str) {
        self.held.send_modify(|held| {
            held.remove(&(namespace.to_owned(), pod.to_owned()));
        });
    }

    /// Waits until a pod is not held back.
    pub async fn may_start(&self, pod: &PodName) {
        let _ = self.held.subscribe().wait_for(|held| !held.contains(pod)).await;
    }

    /// Ends every pod of a namespace at once, without a report: its claim has ended, and the processors are wanted for others.
    pub fn abandon(&self, namespace: &str) {
        self.abandoned.send_modify(|abandoned| {
            abandoned.insert(namespace.to_owned());
        });
    }

    /// Ends every pod, as [`Self::abandon`].
    pub fn abandon_all(&self) {
        let namespaces: Vec<String> =
            self.running.lock().unwrap().keys().map(|(namespace, _)| namespace.clone()).collect();
        for namespace in namespaces {
            self.abandon(&namespace);
        }
    }

    /// A claim begins in a namespace of this name.
    pub fn adopt(&self, namespace: &str) {
        self.abandoned.send_modify(|abandoned| {
            abandoned.remove(namespace);
        });
    }

    /// Waits until a namespace is abandoned.
    pub async fn until_abandoned(&self, namespace: &str) {
        let _ = self.abandoned.subscribe().wait_for(|abandoned| abandoned.contains(namespace)).await;
    }

    /// Folder of an image's engine, which begins the search path of its agents; `None`: there is no such image.
    pub fn engine(&self, image: &str) -> Option<PathBuf> {
        folder_of(&self.engines, image)
    }

    /// Folder of a pod or a volume.
    pub fn place(&self, kind: &str, uid: &str) -> PathBuf {
        let place = self.folder.join(kind).join(uid);
        fs::create_dir_all(&place).unwrap();
        place
    }

    /// Notes a process group, so that it ends with the control plane.
    pub fn note_group(&self, group: u32) {
        fs::write(self.folder.join("groups").join(group.to_string()), "").unwrap();
    }

    /// Kills what is left of a process group, and forgets it.
    pub fn end_group(&self, group: u32) {
        signal(&format!("-{group}"), "KILL");
        let _ = fs::remove_file(self.folder.join("groups").join(group.to_string()));
    }

    /// Folders of a pod's volumes by name; it must run.
    pub fn folders(&self, namespace: &str, pod: &str) -> BTreeMap<String, PathBuf> {
        let running = self.running.lock().unwrap();
        let pod = running.get(&(namespace.to_owned(), pod.to_owned()));
        pod.expect("the pod runs").folders.clone()
    }

    /// Writes the Secrets of all pods of a namespace again, as a kubelet does once in a while: a minute may pass before it does.
    pub async fn refresh_secrets(&self, namespace: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let secrets = Api::namespaced(self.client.clone(), namespace);
        let running: Vec<(PodName, Running)> =
            self.running.lock().unwrap().iter().map(|(name, running)| (name.clone(), running.clone())).collect();
        for ((_, name), running) in running.into_iter().filter(|((of, _), _)| of == namespace) {
            let Some(pod) = pods.get_opt(&name).await.unwrap() else { continue };
            for volume in pod.spec.into_iter().flat_map(|spec| spec.volumes.unwrap_or_default()) {
                if let Some(source) = &volume.secret {
                    crate::pod::write_secret(&secrets, &running.folders[&volume.name], source).await;
                }
            }
        }
    }

    /// What a pod has logged so far; empty where it does not run.
    pub fn log(&self, namespace: &str, pod: &str) -> String {
        let running = self.running.lock().unwrap().get(&(namespace.to_owned(), pod.to_owned())).cloned();
        let home = running.map(|running| running.folders["log"].clone());
        home.and_then(|home| fs::read_to_string(home.join("log")).ok()).unwrap_or_default()
    }

    /// Sends a signal to a process of a pod: `redoubt` is the agent, each other name its engine.
    pub fn signal(&self, namespace: &str, pod: &str, name: &str, process: &str) {
        let running = self.running.lock().unwrap().get(&(namespace.to_owned(), pod.to_owned())).cloned();
        let agent = running.unwrap_or_else(|| panic!("{namespace}/{pod} does not run")).agent;
        let pids = if process == "redoubt" { vec![agent] } else { children(agent) };
        assert!(!pids.is_empty(), "{namespace}/{pod} has no process {process}");
        for pid in pids {
            signal(&pid.to_string(), name);
        }
    }
}

/// Panics where there is no program for the image of most claims, none of whose pods would ever start.
pub fn check_engines() {
    let image = crate::test_namespace::engine();
    assert!(
        folder_of(&engines(), image).is_some(),
        "REDOUBT_TEST_ENGINES names no program for {image}; set it: export REDOUBT_TEST_ENGINES=$(tests/engines/engines)"
    );
}

/// `localhost/redis:7.0`, and `localhost/of-redis-7.0`, whose name says no version.
fn folder_of(engines: &[Engine], image: &str) -> Option<PathBuf> {
    let name = image.rsplit('/').next()?.trim_start_matches("of-").replace(':', "-");
    let found = engines.iter().find(|engine| engine.name == name)?;
    Some(found.program.parent()?.to_owned())
}

/// Processes that an agent started itself.
pub fn children(agent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Sends a signal to a process, or to a group where the id is negative. The process may have ended by itself.
pub fn signal(id: &str, name: &str) {
    let _ = Command::new("kill").args(["-s", name, "--", id]).stderr(Stdio::null()).status();
}
