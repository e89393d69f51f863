//! Whether a live server's users have exactly the rules that they should have.
//!
//! Servers rewrite rules: `ACL LIST` shows them reordered, with categories taken apart, and each engine and version does it
//! its own way. So the server itself is asked how it would write the desired rules: they are given to a scratch user, which
//! is off and exists for the length of one write, and what `ACL LIST` shows of it is compared with the real user's line.
//! The answer holds for the life of the server's process and is remembered until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ::redis::{Cmd, FromRedisValue as _, cmd};
use sha2::{Digest as _, Sha256};

use super::connection::Connection;
use super::error::{Error, Result};
use super::users::DEFAULT;
use crate::model::desired::DesiredUser;

/// How the names of the users begin that exist for the length of one write.
const SCRATCH: &str = "redoubt-scratch";
/// Users that are asked for at once: 200 lines of rules are some 100 kB.
const LARGEST_BATCH: usize = 200;
/// Remembered forms, 64 bytes each; more than that many mean that most belong to processes long gone. 20 layers of 6 nodes
/// with 500 stores each have 60,000.
const LARGEST_MEMORY: usize = 150_000;

/// A user as one server writes it. `Debug` is left out: it would print password digests.
#[derive(Clone, PartialEq, Eq)]
struct Form {
    on: bool,
    passwords: BTreeSet<String>,
    rules: Vec<String>,
}

/// A line of `ACL LIST`: `user NAME words…`. `None`: no such line.
fn parse_line(line: &str) -> Option<(&str, Form)> {
    let (name, words) = line.strip_prefix("user ")?.split_once(' ').unwrap_or((line.strip_prefix("user ")?, ""));
    let mut form = Form { on: false, passwords: BTreeSet::new(), rules: Vec::new() };
    for word in words.split_whitespace() {
        match word {
            "on" => form.on = true,
            "off" => form.on = false,
            password if password.starts_with('#') => _ = form.passwords.insert(password.to_owned()),
            rule => form.rules.push(rule.to_owned()),
        }
    }
    Some((name, form))
}

/// What the comparison of one server's users says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserReport {
    /// Desired users whose rules are exactly the desired ones.
    pub in_place: BTreeSet<String>,
    /// Users that are not declared. The default user is among them only while it is switched on.
    pub foreign: BTreeSet<String>,
}

/// How servers write the desired rules: remembered by process and rules. One for the whole operator; cheap to share.
#[derive(Default)]
pub struct UserForms {
    known: Mutex<BTreeMap<Fingerprint, Fingerprint>>,
}

impl UserForms {
    /// Compares `lines` (`ACL LIST` of the process `run_id`) with the desired users; asks the server only for forms that
    /// differ from what it said before, or that it was not asked for. The errors say which users' rules this server does not take.
    pub async fn compare(
        &self,
        connection: &Connection,
        run_id: &str,
        lines: &[String],
        desired: &BTreeMap<String, DesiredUser>,
    ) -> (UserReport, Vec<Error>) {
        let live: BTreeMap<&str, Form> = lines.iter().filter_map(|line| parse_line(line)).collect();
        let mut report = UserReport::default();
        let present: Vec<(&String, &DesiredUser)> =
            desired.iter().filter(|(name, _)| live.contains_key(name.as_str())).collect();
        let is_as_known = |name: &String, user: &DesiredUser| {
            let live = live.get(name.as_str()).map(Form::fingerprint);
            live.is_some() && self.known(run_id, user) == live
        };
        // Only a match is believed of the memory: Redis 7.0 writes the rules of one user in an order that may change while it
        // runs, and a form that was right once would have the user set again without end.
        let doubtful: Vec<&DesiredUser> =
            present.iter().filter(|(name, user)| !is_as_known(name, user)).map(|(_, user)| *user).collect();
        let faults = self.learn(connection, run_id, &doubtful).await;
        report.in_place =
            present.iter().filter(|(name, user)| is_as_known(name, user)).map(|(name, _)| (*name).clone()).collect();
        let is_foreign = |(name, form): &(&&str, &Form)| {
            !desired.contains_key(**name) && !name.starts_with(SCRATCH) && (**name != DEFAULT || form.on)
        };
        report.foreign = live.iter().filter(is_foreign).map(|(name, _)| (*name).to_owned()).collect();
        (report, faults)
    }

    fn known(&self, run_id: &str, user: &DesiredUser) -> Option<Fingerprint> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key(run_id, user)).copied()
    }

    /// Asks the server for the forms of these users, many in one round trip.
    async fn learn(&self, connection: &Connection, run_id: &str, users: &[&DesiredUser]) -> Vec<Error> {
        let mut faults = Vec::new();
        for batch in users.chunks(LARGEST_BATCH) {
            let forms = match ask_forms(connection, batch).await {
                Ok(forms) => forms,
                Err(error) => {
                    faults.push(error);
                    return faults;
                }
            };
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= LARGEST_MEMORY {
                known.clear();
            }
            for (user, form) in batch.iter().zip(forms) {
                match form {
                    Ok(form) => _ = known.insert(key(run_id, user), form.fingerprint()),
                    Err(error) => faults.push(error),
                }
            }
        }
        faults
    }
}

/// What is remembered instead of names, rules and forms, which would be a hundred times as large.
type Fingerprint = [u8; 32];

fn key(run_id: &str, user: &DesiredUser) -> Fingerprint {
    Sha256::digest(format!("{run_id}\n{}", user.rules.join("\n"))).into()
}

impl Form {
    fn fingerprint(&self) -> Fingerprint {
        let passwords: Vec<&str> = self.passwords.iter().map(String::as_str).collect();
        Sha256::digest(format!("{}\n{}\n\n{}", self.on, passwords.join("\n"), self.rules.join("\n"))).into()
    }
}

/// The forms of these users, or the server's words on the rules that it does not take. The outer error is the connection's.
async fn ask_forms(connection: &Connection, users: &[&DesiredUser]) -> Result<Vec<Result<Form>>> {
    let acl = |subcommand: &str, arguments: &[&str]| -> Cmd {
        let mut command = cmd("ACL");
        command.arg(subcommand).arg(arguments);
        command
    };
    let names: Vec<String> = (0..users.len()).map(|number| format!("{SCRATCH}-{number}")).collect();
    let mut commands: Vec<Cmd> = Vec::new();
    for (name, user) in names.iter().zip(users) {
        let mut rules: Vec<&str> = vec![name];
        rules.extend(user.rules.iter().map(String::as_str));
        rules.push("off");
        commands.push(acl("SETUSER", &rules));
    }
    commands.push(acl("LIST", &[]));
    commands.push(acl("DELUSER", &names.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut replies = connection.query_all(&commands).await?;
    let too_few = || Err(connection.bad_reply("ACL", "too few replies"));
    let deleted = replies.pop().unwrap_or_else(too_few);
    let lines = replies.pop().unwrap_or_else(too_few)?;
    deleted?;
    let lines =
        Vec::<String>::from_redis_value(lines).map_err(|error| connection.bad_reply("ACL LIST", error.to_string()))?;
    let mut scratch: BTreeMap<&str, Form> = lines.iter().filter_map(|line| parse_line(line)).collect();
    let forms = names.iter().zip(users).zip(replies).map(|((name, user), set)| {
        set?;
        let form = scratch.remove(name.as_str());
        let form = form.ok_or_else(|| connection.bad_reply("ACL LIST", "no line of the user just set"))?;
        Ok(Form { on: user.is_on(), ..form })
    });
    Ok(forms.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_order_of_its_passwords() {
        let (name, first) = parse_line("user app on sanitize-payload #aa #bb ~* resetchannels -@all +get").unwrap();
        let (_, second) = parse_line("user app on sanitize-payload #bb #aa ~* resetchannels -@all +get").unwrap();
        assert_eq!(name, "app");
        assert!(first == second && first.on);
        let (_, off) = parse_line("user app off sanitize-payload #bb #aa ~* resetchannels -@all +get").unwrap();
        assert!(off != first);
    }

    #[test]
    fn the_last_switch_counts() {
        let user = |rules: &[&str]| DesiredUser { rules: rules.iter().map(|rule| (*rule).to_owned()).collect() };
        assert!(user(&["reset", "on", "+get"]).is_on());
        assert!(!user(&["reset", "on", "off"]).is_on());
        assert!(!user(&["on", "reset"]).is_on());
        assert!(!user(&[]).is_on());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_fail(line in "(user )?.{0,60}") {
            let _ = parse_line(&line);
        }
    }
}
