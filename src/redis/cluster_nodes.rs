//! `CLUSTER NODES` and `CLUSTER INFO`: what a server believes of its Cluster.
//!
//! A line is `<id> <host>:<port>@<bus>[,<name>[,<field>=<value>…]] <flags> <primary or -> <ping> <pong> <epoch> <link> <slot>…`, where a
//! slot is `5`, `0-5460`, `[93->-<id>]` (leaves) or `[93-<-<id>]` (comes). <https://redis.io/docs/latest/commands/cluster-nodes/>

use std::collections::BTreeMap;

use ::redis::{Cmd, cmd};

use super::connection::Connection;
use super::error::Result;
use super::info::Info;
use super::reply::text;
use crate::model::Address;
use crate::model::cluster::{ClusterNodeId, ClusterView, ConfigEpoch, Member, MemberFlag};
use crate::model::slots::{Slot, SlotRange};

/// The words of `flags` that say something of a member. Others say its role, or nothing (`noflags`).
const FLAGS: [(&str, MemberFlag); 5] = [
    ("fail?", MemberFlag::Suspected),
    ("fail", MemberFlag::Failed),
    ("handshake", MemberFlag::Handshake),
    ("noaddr", MemberFlag::NoAddress),
    ("nofailover", MemberFlag::NoFailover),
];

/// The commands whose replies [`read_view`] puts together.
pub(super) fn view_questions() -> [Cmd; 2] {
    let question = |word: &str| {
        let mut command = cmd("CLUSTER");
        command.arg(word);
        command
    };
    [question("NODES"), question("INFO")]
}

/// What the server believes. Errors: it is no server of a Cluster, or its words make no sense.
pub async fn view(connection: &Connection) -> Result<ClusterView> {
    let mut words = Vec::new();
    for reply in connection.query_all(&view_questions()).await? {
        words.push(text(&reply?).unwrap_or_default());
    }
    let (nodes, info) = (words.first().map_or("", String::as_str), words.get(1).map_or("", String::as_str));
    parse(nodes, info).map_err(|problem| connection.bad_reply("CLUSTER NODES", problem))
}

/// Reads both texts. Errors: what makes no sense, with its line.
pub fn parse(nodes: &str, info: &str) -> std::result::Result<ClusterView, String> {
    let mut own = None;
    let mut members = BTreeMap::new();
    let mut open = OpenSlots::default();
    for line in nodes.lines().filter(|line| !line.is_empty()) {
        let Line { id, is_own, member } =
            parse_line(line, &mut open).map_err(|problem| format!("{problem}: {line}"))?;
        if is_own && own.replace(id.clone()).is_some() {
            return Err("two members are the server itself".to_owned());
        }
        if members.insert(id, member).is_some() {
            return Err(format!("a member is there twice: {line}"));
        }
    }
    let info = Info::parse(info);
    let current_epoch =
        info.number("cluster_current_epoch").map(ConfigEpoch).ok_or("there is no cluster_current_epoch")?;
    Ok(ClusterView {
        own: own.ok_or("no member is the server itself")?,
        members,
        migrating: open.migrating,
        importing: open.importing,
        serves: info.field("cluster_state") == Some("ok"),
        current_epoch,
    })
}

/// Slots that are on their way, as the server's own line has them.
#[derive(Default)]
struct OpenSlots {
    migrating: BTreeMap<Slot, ClusterNodeId>,
    importing: BTreeMap<Slot, ClusterNodeId>,
}

struct Line {
    id: ClusterNodeId,
    is_own: bool,
    member: Member,
}

fn parse_line(line: &str, open: &mut OpenSlots) -> std::result::Result<Line, &'static str> {
    let mut words = line.split(' ');
    let mut next = |problem| words.next().ok_or(problem);
    let id = ClusterNodeId::parse(next("no ID")?).ok_or("the ID is none")?;
    let address = address(next("no address")?)?;
    let flags: Vec<&str> = next("no flags")?.split(',').collect();
    let primary = match next("no primary")? {
        "-" => None,
        primary => Some(ClusterNodeId::parse(primary).ok_or("the primary's ID is none")?),
    };
    let (_ping, _pong) = (next("no time of a PING")?, next("no time of a PONG")?);
    let epoch = next("no epoch")?.parse().map(ConfigEpoch).map_err(|_| "the epoch is no number")?;
    let _link = next("no state of the link")?;
    let mut ranges = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        match word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            Some(moving) => {
                let (slot, other, map) = match (moving.split_once("->-"), moving.split_once("-<-")) {
                    (Some((slot, to)), _) => (slot, to, &mut open.migrating),
                    (None, Some((slot, from))) => (slot, from, &mut open.importing),
                    (None, None) => return Err("a slot is on no known way"),
                };
                map.insert(parse_slot(slot)?, ClusterNodeId::parse(other).ok_or("a slot's other ID is none")?);
            }
            None => ranges.push(parse_range(word)?),
        }
    }
    let is_so = |word: &str| flags.contains(&word);
    let flags = FLAGS.into_iter().filter(|(word, _)| is_so(word)).map(|(_, flag)| flag).collect();
    let is_own = is_so("myself");
    Ok(Line { id, is_own, member: Member { address, primary, flags, epoch, slots: ranges.into_iter().collect() } })
}

/// The host of `host:port@bus[,name[,field=value…]]`. A host of the newer protocol holds colons itself.
fn address(word: &str) -> std::result::Result<Option<Address>, &'static str> {
    let place = word.split(['@', ',']).next().unwrap_or_default();
    let (host, _port) = place.rsplit_once(':').ok_or("the address has no port")?;
    Ok((!host.is_empty()).then(|| Address(host.to_owned())))
}

fn parse_range(word: &str) -> std::result::Result<SlotRange, &'static str> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    SlotRange::new(parse_slot(first)?, parse_slot(last)?).ok_or("a range ends before it begins")
}

fn parse_slot(word: &str) -> std::result::Result<Slot, &'static str> {
    word.parse().ok().and_then(Slot::new).ok_or("a slot is no number below 16384")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::slots::SlotSet;

    const INFO: &str = "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_current_epoch:6\r\n";

    fn id(digit: char) -> ClusterNodeId {
        ClusterNodeId::parse(&digit.to_string().repeat(40)).unwrap()
    }

    /// Redis 7.0 writes the name after a comma, and what follows it where a server announces one; one that was forgotten has no address.
    fn text() -> String {
        let (a, b, c, d) = (id('a'), id('b'), id('c'), id('d'));
        format!(
            "{a} 10.0.0.1:6379@16379,web-redis-0.shop.svc,tls-port=0,shard-id=0123 myself,master - 0 1700 3 connected 0-5460 7000 [93->-{b}] [9000-<-{c}]\n\
             {b} 10.0.0.2:6379@16379 master,fail? - 0 1700 2 connected 5461-6999 7001-16383\n\
             {c} ::1:6379@16379,,tls-port=0 slave,nofailover {a} 0 1700 3 connected\n\
             {d} :0@0 master,noaddr,handshake - 0 0 0 disconnected\n"
        )
    }

    #[test]
    fn a_view_is_read_as_redis_and_valkey_write_it() {
        let view = parse(&text(), INFO).unwrap();
        let slots: Vec<String> = view.members.values().map(|member| member.slots.to_string()).collect();
        assert_eq!(slots, ["0-5460,7000", "5461-6999,7001-16383", "", ""]);
        assert_eq!((view.own.clone(), view.serves, view.current_epoch), (id('a'), true, ConfigEpoch(6)));
        assert_eq!(view.migrating, BTreeMap::from([(Slot::new(93).unwrap(), id('b'))]));
        assert_eq!(view.importing, BTreeMap::from([(Slot::new(9_000).unwrap(), id('c'))]));
        let addresses: Vec<Option<&str>> =
            view.members.values().map(|member| member.address.as_ref().map(|address| address.0.as_str())).collect();
        assert_eq!(addresses, [Some("10.0.0.1"), Some("10.0.0.2"), Some("::1"), None]);
        let flags = |id| view.members[&id].flags.clone();
        assert_eq!(flags(id('b')), BTreeSet::from([MemberFlag::Suspected]));
        assert_eq!(flags(id('c')), BTreeSet::from([MemberFlag::NoFailover]));
        assert_eq!(flags(id('d')), BTreeSet::from([MemberFlag::NoAddress, MemberFlag::Handshake]));
        assert_eq!(
            (view.members[&id('c')].primary.clone(), view.members[&id('b')].epoch),
            (Some(id('a')), ConfigEpoch(2))
        );
        let owned = view.members.values().fold(SlotSet::default(), |all, member| all.union(&member.slots));
        assert_eq!(owned, SlotSet::all());
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        let (a, b) = (id('a'), id('b'));
        let own = format!("{a} 10.0.0.1:6379@16379 myself,master - 0 0 1 connected");
        for (nodes, info, problem) in [
            (String::new(), INFO, "no member is the server itself"),
            (format!("{own}\n{own}"), INFO, "two members are the server itself"),
            (own.clone(), "cluster_state:ok", "there is no cluster_current_epoch"),
            (format!("{own} 16384"), INFO, "a slot is no number below 16384"),
            (format!("{own} 9-8"), INFO, "a range ends before it begins"),
            (format!("{own} [9-8]"), INFO, "a slot is on no known way"),
            (format!("{own}\n{b} 10.0.0.2 master - 0 0 1 connected"), INFO, "the address has no port"),
            (format!("{own}\n{b} 10.0.0.2:6379@16379 master - 0 0"), INFO, "no epoch"),
            (format!("{own}\nshort 10.0.0.2:6379@16379 master - 0 0 1 connected"), INFO, "the ID is none"),
        ] {
            let found = parse(&nodes, info).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }

    proptest! {
        /// Cut anywhere, or with a byte of another kind in it, it is read or refused.
        #[test]
        fn no_text_stops_the_parser(at in 0_usize..600, byte in any::<char>(), cut in any::<bool>()) {
            let mut text = text();
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            if cut { text.truncate(at) } else { text.insert(at, byte) }
            let _ = parse(&text, INFO);
        }
    }
}
