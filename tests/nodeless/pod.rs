//! One pod: the files that its container would see, its process, its probe, its status.
//!
//! Imitates what a kubelet does of it: volumes by the pod's own specification, restarts with growing pauses, readiness every
//! second, SIGTERM and the grace period. The init container, which copies the agent, is left out: the agent is this tree's binary.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, SecretVolumeSource, Service, Volume};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use redoubt::model::node_config::AGENT_PORT;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::kubelet::{Kubelet, PodName, Running, signal};

/// Between two tries of what is not there yet: a Secret, a Service's address.
const RETRY: Duration = Duration::from_millis(20);
/// Between two probes of a pod that is not ready, and of one that is (`periodSeconds` of the pods is 1).
const PROBE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// The longest pause before a restart; a kubelet's is five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause before a restart. As a kubelet's the first is short and every later one longer, and told as `CrashLoopBackOff`.
fn pause_before(restarts: i32) -> Duration {
    match restarts {
        0 => Duration::from_millis(100),
        more => Duration::from_secs(1 << (more - 1).min(4)).min(LONGEST_PAUSE),
    }
}

/// The pod's object was removed while its process ran or waited.
struct Gone;

/// What a pod is made of, and what its status says of its past.
struct Life {
    kubelet: Arc<Kubelet>,
    changes: watch::Receiver<Pod>,
    name: PodName,
    uid: String,
    restarts: i32,
    last: Value,
}

/// Runs a pod until its object is removed.
pub async fn live(kubelet: Arc<Kubelet>, changes: watch::Receiver<Pod>) {
    let pod = changes.borrow().clone();
    let name = (pod.namespace().unwrap(), pod.name_any());
    let mut life = Life { kubelet, changes, name, uid: pod.uid().unwrap(), restarts: 0, last: json!({}) };
    let (kubelet, name) = (Arc::clone(&life.kubelet), life.name.clone());
    tokio::select! {
        // Its object may be removed at any time: then there is nothing left to do.
        _ = life.run() => {}
        () = kubelet.until_abandoned(&name.0) => {
            let running = kubelet.running.lock().unwrap().remove(&name);
            if let Some(running) = running {
                kubelet.end_group(running.agent);
            }
        }
    }
}

impl Life {
    async fn run(&mut self) -> Result<(), Gone> {
        self.bind().await?;
        loop {
            let Some(mut child) = self.start().await? else { return self.remove().await };
            let agent = child.id().unwrap();
            let ended = self.attend(&mut child).await;
            self.kubelet.end_group(agent);
            self.kubelet.running.lock().unwrap().remove(&self.name);
            let status = ended?;
            if self.is_deleted() {
                return self.remove().await;
            }
            let pause = pause_before(self.restarts);
            self.restarts += 1;
            self.last = json!({"terminated": {
                "exitCode": status.code().unwrap_or(137), "reason": "Error", "message": self.last_words(),
            }});
            if self.restarts > 1 {
                let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "the container ended again and again"}});
                self.report(None, waiting, false).await;
            }
            if self.until_deleted_or(sleep(pause)).await? {
                return self.remove().await;
            }
        }
    }

    fn pod(&self) -> Pod {
        self.changes.borrow().clone()
    }

    fn is_deleted(&self) -> bool {
        self.changes.borrow().metadata.deletion_timestamp.is_some()
    }

    /// Waits for a future or the order to delete, whichever comes first; whether it is the order.
    async fn until_deleted_or<T>(&mut self, work: impl Future<Output = T>) -> Result<bool, Gone> {
        let deleted = self.changes.wait_for(|pod| pod.metadata.deletion_timestamp.is_some());
        tokio::select! {
            deleted = deleted => deleted.map(|_| true).map_err(|_| Gone),
            _ = work => Ok(false),
        }
    }

    /// Puts it on a Kubernetes node, as the scheduler does: nodes of one ordinal share one.
    async fn bind(&mut self) -> Result<(), Gone> {
        let kubelet = Arc::clone(&self.kubelet);
        let name = self.name.clone();
        if self.until_deleted_or(async move { kubelet.may_start(&name).await }).await? {
            // A pod without a node is removed by the API server itself.
            return Ok(());
        }
        let ordinal = self.name.1.rsplit('-').nth(1).and_then(|ordinal| ordinal.parse::<u32>().ok()).unwrap_or(0);
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": format!("node{}", ordinal % 3 + 1)});
        let binding =
            json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name.1}, "target": target});
        // It fails where the pod is gone by now, which the watch says as well.
        let _ = self
            .pods()
            .create_subresource::<Value, Value>("binding", &self.name.1, &PostParams::default(), &binding)
            .await;
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        self.api()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kubelet.client.clone(), &self.name.0)
    }

    /// Starts the container once all that it needs is there; `None`: the pod was told to stop before.
    async fn start(&mut self) -> Result<Option<Child>, Gone> {
        let mut told = Value::Null;
        loop {
            if self.is_deleted() {
                return Ok(None);
            }
            match self.prepare().await {
                Ok(start) => return Ok(Some(self.spawn(&start).await)),
                Err(reason) if reason != told && !reason.is_null() => {
                    self.report(None, reason.clone(), false).await;
                    told = reason;
                }
                Err(_) => {}
            }
            if self.until_deleted_or(sleep(RETRY)).await? {
                return Ok(None);
            }
        }
    }

    /// Files and address of the container. An error: the state of its status while something is missing.
    async fn prepare(&self) -> Result<Start, Value> {
        let pod = self.pod();
        let spec = pod.spec.clone().unwrap_or_default();
        let image = spec.containers[0].image.clone().unwrap_or_default();
        let Some(engine) = self.kubelet.engine(&image) else {
            let message = format!("{image}: there is no such image");
            return Err(json!({"waiting": {"reason": "ErrImagePull", "message": message}}));
        };
        let service: Api<Service> = self.api();
        let service = service.get_opt(&spec.subdomain.clone().unwrap_or_default()).await.ok().flatten();
        let address = service.and_then(|service| service.spec?.cluster_ip).filter(|address| !address.is_empty());
        let Some(address) = address else { return Err(Value::Null) };
        let home = self.kubelet.place("pods", &self.uid);
        let mut folders = BTreeMap::new();
        for volume in spec.volumes.into_iter().flatten() {
            let folder = self.volume(&home, &volume, &pod).await.ok_or(Value::Null)?;
            folders.insert(volume.name, folder);
        }
        Ok(Start { address, engine, home, folders })
    }

    /// Folder of a volume with what belongs into it; `None`: its source is not there yet.
    async fn volume(&self, home: &Path, volume: &Volume, pod: &Pod) -> Option<PathBuf> {
        if let Some(claim) = &volume.persistent_volume_claim {
            let claims: Api<PersistentVolumeClaim> = self.api();
            return Some(self.kubelet.place("volumes", &claims.get(&claim.claim_name).await.ok()?.uid()?));
        }
        let folder = home.join(&volume.name);
        fs::create_dir_all(&folder).unwrap();
        if let Some(source) = &volume.secret {
            write_secret(&self.api(), &folder, source).await?;
        }
        if volume.downward_api.is_some() {
            write_annotations(&folder, volume, pod);
        }
        Some(folder)
    }

    async fn spawn(&mut self, start: &Start) -> Child {
        let log = fs::File::options().create(true).append(true).open(start.home.join("log")).unwrap();
        let path = format!("{}:{}", start.engine.display(), std::env::var("PATH").unwrap());
        self.kubelet.services.release(&start.address).await;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_redoubt"));
        command
            .args(["agent", "--bind", &start.address])
            .arg("--data")
            .arg(&start.folders["data"])
            .arg("--config")
            .arg(start.folders["node"].join("config.json"))
            .arg("--secrets")
            .arg(&start.folders["secrets"])
            .arg("--run")
            .arg(&start.folders["run"])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // The container's processes end with its first one.
            .process_group(0);
        let child = Command::from(command).spawn().unwrap();
        let agent = child.id().unwrap();
        self.kubelet.note_group(agent);
        let labels = self.pod().labels().clone();
        let mut folders = start.folders.clone();
        folders.insert("log".to_owned(), start.home.clone());
        let running = Running { agent, address: start.address.clone(), labels, ready: false, folders };
        self.kubelet.running.lock().unwrap().insert(self.name.clone(), running);
        self.report(Some(&start.address), json!({"running": {}}), false).await;
        child
    }

    /// Probes the container until it ends, and tells it to stop when the pod is deleted.
    async fn attend(&mut self, child: &mut Child) -> Result<ExitStatus, Gone> {
        let address = self.kubelet.running.lock().unwrap()[&self.name].address.clone();
        let agent = child.id().unwrap().to_string();
        let (mut ready, mut killed_at) = (false, None);
        loop {
            let probe = async {
                sleep(PROBE[usize::from(ready)]).await;
                is_ready(&address).await
            };
            let late = async {
                match killed_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = child.wait() => return Ok(ended.unwrap()),
                now = probe => {
                    if now != ready {
                        ready = now;
                        self.note(|running| running.ready = now);
                        self.report(Some(&address), json!({"running": {}}), ready).await;
                    }
                }
                () = late => signal(&agent, "KILL"),
                changed = self.changes.changed() => {
                    changed.map_err(|_| Gone)?;
                    let pod = self.changes.borrow_and_update().clone();
                    self.note(|running| running.labels = pod.labels().clone());
                    self.refresh(&pod);
                    if pod.metadata.deletion_timestamp.is_some() && killed_at.is_none() {
                        signal(&agent, "TERM");
                        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
                        killed_at = Some(Instant::now() + Duration::from_secs(grace.try_into().unwrap()));
                    }
                }
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.kubelet.running.lock().unwrap().get_mut(&self.name) {
            change(running);
        }
    }

    /// Writes the document again: its annotation may be another one.
    fn refresh(&self, pod: &Pod) {
        let home = self.kubelet.place("pods", &self.uid);
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            if volume.downward_api.is_some() {
                write_annotations(&home.join(&volume.name), volume, pod);
            }
        }
    }

    /// The end of its log, as `FallbackToLogsOnError` takes it.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.kubelet.place("pods", &self.uid).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Writes the pod's status.
    async fn report(&self, address: Option<&str>, state: Value, ready: bool) {
        let pod = self.pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let truth = |holds: bool| if holds { "True" } else { "False" };
        let mut status = json!({
            "phase": if address.is_some() { "Running" } else { "Pending" },
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": truth(ready)},
                {"type": "Ready", "status": truth(ready)},
            ],
            "containerStatuses": [{
                "name": container.name, "image": container.image, "imageID": "", "started": address.is_some(),
                "ready": ready, "restartCount": self.restarts, "state": state, "lastState": self.last,
            }],
        });
        if let Some(address) = address {
            status["podIP"] = json!(address);
            status["podIPs"] = json!([{"ip": address}]);
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.uid}, "status": status}));
        if let Err(error) = self.pods().patch_status(&self.name.1, &PatchParams::default(), &patch).await {
            // A pod that was removed by force meanwhile is told by the watch.
            let is_gone = matches!(&error, kube::Error::Api(status) if status.is_not_found() || status.is_conflict());
            assert!(is_gone, "the status of {:?}: {error}", self.name);
        }
    }

    /// Removes the object of a pod that has ended.
    async fn remove(&self) -> Result<(), Gone> {
        let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let _ = self.pods().delete(&self.name.1, &parameters).await;
        let _ = fs::remove_dir_all(self.kubelet.place("pods", &self.uid));
        Ok(())
    }
}

/// What a container is started with.
struct Start {
    address: String,
    engine: PathBuf,
    home: PathBuf,
    folders: BTreeMap<String, PathBuf>,
}

/// Writes the files of a Secret's volume; `None`: it is not there yet, or lacks one.
pub async fn write_secret(secrets: &Api<Secret>, folder: &Path, source: &SecretVolumeSource) -> Option<()> {
    let data = secrets.get(source.secret_name.as_deref()?).await.ok()?.data.unwrap_or_default();
    for item in source.items.iter().flatten() {
        write(&folder.join(&item.path), &data.get(&item.key)?.0);
    }
    Some(())
}

/// Whole or not at all: an agent reads it at any time.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path.with_extension("new"), bytes).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn write_annotations(folder: &Path, volume: &Volume, pod: &Pod) {
    for item in volume.downward_api.iter().flat_map(|source| source.items.iter().flatten()) {
        let field = item.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
        let name = field.trim_start_matches("metadata.annotations['").trim_end_matches("']");
        if let Some(text) = pod.annotations().get(name) {
            write(&folder.join(&item.path), text.as_bytes());
        }
    }
}

async fn is_ready(address: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((address, AGENT_PORT)).await.ok()?;
        stream.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.split_whitespace().nth(1) == Some("200"))
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().unwrap_or(false)
}
