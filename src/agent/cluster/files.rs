//! `nodes.conf`, in which a server keeps its name and what it knows of the Cluster. It is the engine's and never edited. The agent keeps a copy
//! and puts that back where the file is lost while the data is there: without it a server takes another name, and the slots of the keys that it
//! finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::agent::config::Environment;
use crate::agent::{Result, chain, durable};
use crate::model::cluster::{ClusterView, ViewAnswer};
use crate::model::node_config::ClusterConfig;
use crate::redis::cluster_nodes;

/// Its name on the volume.
pub(crate) const NODES_FILE: &str = "nodes.conf";
/// What its last line begins with: a file without it is cut.
const LAST_LINE: &str = "vars currentEpoch ";

fn live(environment: &Environment) -> PathBuf {
    environment.data.join(NODES_FILE)
}

fn copy(environment: &Environment) -> PathBuf {
    environment.data.join("redoubt").join(NODES_FILE)
}

/// What a whole file says; `None`: it is cut, or none of an engine.
fn parse(text: &str) -> Option<ClusterView> {
    let last = text.lines().find_map(|line| line.strip_prefix(LAST_LINE))?;
    let epoch = last.split(' ').next()?;
    let nodes: Vec<&str> = text.lines().filter(|line| !line.starts_with("vars ")).collect();
    cluster_nodes::parse(&nodes.join("\n"), &format!("cluster_current_epoch:{epoch}")).ok()
}

/// What the server knew when it wrote its file last.
pub(crate) fn recorded_view(environment: &Environment, cluster: &ClusterConfig) -> Option<ViewAnswer> {
    let read = |path: PathBuf| parse(&durable::read(&path).ok()??);
    Some(read(live(environment)).or_else(|| read(copy(environment)))?.answer(&cluster.declared()))
}

/// Makes the file ready for a start. `has_data`: the server will find data. `as_primary`: it is to own the slots that it owned.
///
/// A server that lost its data and owned slots begins as a new one: under its old name it would give its emptiness to its replicas.
pub(crate) fn prepare(environment: &Environment, has_data: bool, as_primary: bool) -> Result<()> {
    let (live, copy) = (live(environment), copy(environment));
    let whole = durable::read(&live)?.and_then(|text| Some((parse(&text)?, text)));
    let kept = durable::read(&copy)?.filter(|text| parse(text).is_some());
    match (whole, kept) {
        (Some((view, _)), _) if !has_data && !as_primary && owns_slots(&view) => {
            tracing::warn!("the server lost its data: it becomes a new member of the Cluster");
            remove(&live)?;
            remove(&copy)
        }
        (Some((_, text)), _) => match without_contradictions(&text) {
            Some(mended) => {
                tracing::warn!(
                    file = NODES_FILE,
                    "the engine would not load its own file: what contradicts itself in it is left out"
                );
                durable::replace(&live, mended)
            }
            None => Ok(()),
        },
        (None, Some(text)) if has_data => {
            tracing::warn!(file = NODES_FILE, "the server's own is lost or cut: the copy is put back");
            durable::replace(&live, text)
        }
        (None, _) => remove(&live),
    }
}

/// The file without the lines for which Valkey 8.1 calls it corrupted and ends at its start, although it wrote them itself: a replica whose
/// `shard-id` is another than its primary's. The server hears of those members again. `None`: there are none.
fn without_contradictions(text: &str) -> Option<String> {
    let shard = |line: &str| {
        let place = line.split(' ').nth(1)?;
        place.split(',').find_map(|field| field.strip_prefix("shard-id=")).map(str::to_owned)
    };
    let own = |line: &str| line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"));
    let id = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let lines: BTreeMap<String, &str> = text.lines().map(|line| (id(line), line)).collect();
    let contradicted: Vec<String> = lines
        .values()
        .filter_map(|line| {
            let primary = lines.get(line.split(' ').nth(3)?)?;
            let differs = shard(line)? != shard(primary)?;
            // Of itself the server has to know whom it copies; of the others it may hear again.
            differs.then(|| if own(line) { id(primary) } else { id(line) })
        })
        .collect();
    if contradicted.is_empty() {
        return None;
    }
    let kept: Vec<&str> = text.lines().filter(|line| !contradicted.contains(&id(line))).collect();
    Some(kept.join("\n") + "\n")
}

fn owns_slots(view: &ClusterView) -> bool {
    view.members.get(&view.own).is_some_and(|member| !member.slots.is_empty())
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(durable::failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Copies the file if it is another than `known`, which becomes what it is.
pub(crate) fn keep_copy(environment: &Environment, known: &mut Option<String>) {
    let text = match durable::read(&live(environment)) {
        Ok(text) => text.filter(|text| parse(text).is_some()),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "no copy is kept of it");
            return;
        }
    };
    if text.is_none() || text == *known {
        return;
    }
    match durable::replace(&copy(environment), text.as_deref().unwrap_or_default()) {
        Ok(()) => *known = text,
        Err(error) => tracing::warn!(error = %chain(&error), "the copy is that of before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: char, shard: char, flags: &str, primary: Option<char>) -> String {
        let long = |letter: char| letter.to_string().repeat(40);
        let primary = primary.map_or_else(|| "-".to_owned(), long);
        format!(
            "{} 10.0.0.1:6379@16379,,tls-port=0,shard-id={} {flags} {primary} 0 1 27 connected\n",
            long(id),
            long(shard)
        )
    }

    const END: &str = "vars currentEpoch 27 lastVoteEpoch 0\n";

    #[test]
    fn a_file_that_an_engine_writes_and_does_not_load_is_made_one_that_it_loads() {
        let whole = [line('a', '1', "myself,slave", Some('b')), line('b', '1', "master", None)].concat();
        assert_eq!(without_contradictions(&(whole.clone() + END)), None);
        // As Valkey 8.1.1 wrote it: it took over a primary's new shard-id, and rejected that of its replica.
        let other = line('d', '3', "master", None);
        let torn = [whole.clone(), line('c', '2', "slave", Some('d')), other.clone()].concat() + END;
        assert_eq!(without_contradictions(&torn), Some(whole.clone() + &other + END));
        let own = [line('a', '2', "myself,slave", Some('b')), line('b', '1', "master", None)].concat() + END;
        assert_eq!(without_contradictions(&own), Some(line('a', '2', "myself,slave", Some('b')) + END));
    }

    #[test]
    fn what_the_server_knew_is_read_from_its_file_and_a_cut_one_is_none() {
        let text = line('a', '1', "myself,master", None) + END;
        assert_eq!(parse(&text).unwrap().current_epoch.0, 27);
        assert_eq!(parse(&text[..text.len() - END.len()]), None);
    }
}
