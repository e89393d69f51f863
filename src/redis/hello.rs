//! Telling Sentinels of a promotion before they find out, in the words in which they tell each other.
//!
//! The Sentinel that fails over learns of its success from its own next `INFO`, up to a second after the promotion, and only
//! then says so to the others; for that long all of them send clients to the dead primary. What it will say is known as soon
//! as the promoted server says that it is primary: the hello message of a Sentinel (documentation, "Sentinels and replicas
//! auto discovery"; format and rules in its source, `sentinelSendHello` and `sentinelProcessHelloMessage`). A Sentinel takes
//! it by `PUBLISH` and believes it if its epoch is newer than what it knows, so a message that comes late changes nothing.

use ::redis::cmd;

use super::connection::Connection;
use super::error::Result;
use crate::model::Address;

/// The one channel on which a Sentinel takes messages.
const CHANNEL: &str = "__sentinel__:hello";

/// What one Sentinel says to another of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Announced address of the Sentinel in whose name it is said. The receiver must know it by this address and
    /// [`Self::run_id`]: it would take another one for new.
    pub sender: &'a Address,
    /// Port of that Sentinel.
    pub sender_port: u16,
    /// `run_id` of that Sentinel, 40 hexadecimal characters.
    pub run_id: &'a str,
    /// Name under which the Sentinels watch the primary.
    pub master_name: &'a str,
    /// Address that the primary announces.
    pub primary: &'a Address,
    /// Port of the primary.
    pub port: u16,
    /// Epoch of the failover that made it primary: the current epoch and that of the configuration.
    pub epoch: u64,
}

impl Hello<'_> {
    fn text(&self) -> String {
        let Self { sender, sender_port, run_id, master_name, primary, port, epoch } = self;
        format!("{sender},{sender_port},{run_id},{epoch},{master_name},{primary},{port},{epoch}")
    }
}

/// `PUBLISH` of it on the channel of one Sentinel.
pub async fn publish(connection: &Connection, hello: &Hello<'_>) -> Result<()> {
    connection.query(cmd("PUBLISH").arg(CHANNEL).arg(hello.text())).await
}

/// The epoch of the failover that a Sentinel has under way from `primary`: the one in which it voted for itself. A question
/// with epoch 0 asks for no vote (`SENTINEL IS-MASTER-DOWN-BY-ADDR`; `sentinelVoteLeader` in its source).
pub(crate) async fn failover_epoch(connection: &Connection, primary: &Address, port: u16) -> Result<u64> {
    let mut question = cmd("SENTINEL");
    question.arg("IS-MASTER-DOWN-BY-ADDR").arg(&primary.0).arg(port).arg(0).arg("nobody");
    let (_, _, epoch): (i64, String, u64) = connection.query(&question).await?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_said_as_sentinels_say_it() {
        let (sender, primary) = (Address("10.0.0.7".into()), Address("10.0.0.2".into()));
        let hello = Hello {
            sender: &sender,
            sender_port: 26379,
            run_id: "abc",
            master_name: "web-1",
            primary: &primary,
            port: 6379,
            epoch: 4,
        };
        assert_eq!(hello.text(), "10.0.0.7,26379,abc,4,web-1,10.0.0.2,6379,4");
    }
}
