//! A Sentinel never knows less than the layer's data nodes recorded.
//!
//! Sentinels that lost their volumes would begin with epoch 0. Records, Sentinels and replicas order everything by epochs, so what
//! was older than the last failover would be newer than all that comes after it. The data nodes' records keep the epoch.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::peers;
use super::state::State;
use crate::model::lineage::LineageAnswer;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::redis::Connection;
use crate::redis::hello::{self, Hello};

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long the last data nodes are waited for when most have answered.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// How long most data nodes are waited for: as long as a silent one blocks the others. A layer that lost more than that at once goes
/// on with what is known, and [`raise`] adds what comes to be known.
const MOST_WITHIN: Duration = Duration::from_mins(1);
/// The same in a layer that is new as far as anybody who answers knows: it has no epoch to lose.
const NEW_WITHIN: Duration = Duration::from_secs(10);

/// The highest epoch that the data nodes recorded, of a majority of which the answers are waited for. Agents answer while their
/// engines wait for the Sentinels, so none waits for another.
pub(super) async fn recorded(state: &State) -> u64 {
    let began = Instant::now();
    let mut most_since = None;
    loop {
        let config = state.config();
        let answers = peers::ask_agents(&config).await;
        let told: Vec<&LineageAnswer> = answers.values().flatten().collect();
        let is_new = !config.initialised && told.iter().all(|answer| !answer.initialised && answer.lineage.is_none());
        let waited = began.elapsed();
        let is_done = if told.len() == answers.len() {
            true
        } else if told.len() > answers.len() / 2 {
            is_new || most_since.get_or_insert(Instant::now()).elapsed() >= REST_WITHIN
        } else {
            waited >= if is_new { NEW_WITHIN } else { MOST_WITHIN }
        };
        if is_done {
            let epoch = peers::highest_epoch(&config.layer.uid, told.into_iter());
            tracing::info!(epoch, ?waited, "the Sentinel begins with the epoch that the data nodes recorded");
            return epoch;
        }
        sleep(ASK_EVERY).await;
    }
}

/// When the own Sentinel's epoch was compared last.
#[derive(Default)]
pub(super) struct EpochCheck {
    polled: Option<Instant>,
}

impl EpochCheck {
    /// Between two comparisons, unless the Sentinel was shown its primary just now.
    const POLL_EVERY: Duration = Duration::from_secs(10);

    /// See [`raise`].
    pub(super) async fn raise_if_due(
        &mut self,
        connection: &Connection,
        config: &NodeConfig,
        own: &SentinelMaster,
    ) -> crate::redis::Result<bool> {
        if own.config_epoch > 0 && self.polled.is_some_and(|at| at.elapsed() < Self::POLL_EVERY) {
            return Ok(false);
        }
        self.polled = Some(Instant::now());
        raise(connection, config, own).await
    }
}

/// Has the own Sentinel know the primary that it names by the epoch that this primary recorded, where that is higher. True: it was
/// told so, in the name of another Sentinel that it knows.
async fn raise(connection: &Connection, config: &NodeConfig, own: &SentinelMaster) -> crate::redis::Result<bool> {
    let Some((ordinal, primary)) = config.data_nodes.iter().find(|(_, address)| **address == own.address) else {
        return Ok(false);
    };
    let Some((run_id, sender)) = own.other_sentinels.iter().next() else { return Ok(false) };
    if own.is_failing_over() {
        return Ok(false);
    }
    let answer = peers::ask_agent(config, *ordinal, primary).await;
    let epoch = peers::highest_epoch(&config.layer.uid, answer.iter());
    if epoch <= own.config_epoch {
        return Ok(false);
    }
    tracing::warn!(%primary, epoch, known = own.config_epoch, "the Sentinel knows its primary by an epoch that is too low");
    let (master_name, sender_port) = (config.master_name.as_str(), SENTINEL_PORT);
    hello::publish(connection, &Hello { sender, sender_port, run_id, master_name, primary, port: REDIS_PORT, epoch })
        .await?;
    Ok(true)
}
