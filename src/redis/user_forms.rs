//! Whether a live server's users have exactly the rules that they should have.
//!
//! Servers rewrite rules: `ACL LIST` shows them reordered, with categories taken apart, and each engine and version does it
//! its own way. So the server itself is asked how it would write the desired rules: they are given to a scratch user, which
//! is off and exists for three commands in one write, and what `ACL LIST` shows of it is compared with the real user's line.
//! The answer holds for the life of the server's process and is remembered until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ::redis::{Cmd, FromRedisValue as _, cmd};

use super::connection::Connection;
use super::error::{Error, Result};
use super::users::DEFAULT;
use crate::model::desired::DesiredUser;

/// Name of the user that exists for three commands.
const SCRATCH: &str = "redoubt-scratch";
/// Remembered forms; more than that many mean that most belong to processes long gone. 20 layers of 6 nodes have 600.
const LARGEST_MEMORY: usize = 10_000;

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

/// Whether the rules leave the user switched on.
fn is_on(user: &DesiredUser) -> bool {
    user.rules
        .iter()
        .rev()
        .find(|rule| matches!(rule.as_str(), "on" | "off" | "reset"))
        .is_some_and(|rule| rule == "on")
}

/// What the comparison of one server's users says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserReport {
    /// Desired users whose rules are exactly the desired ones.
    pub in_place: BTreeSet<String>,
    /// Users that nobody declared. The default user is among them only while it is switched on.
    pub foreign: BTreeSet<String>,
}

/// How servers write the desired rules: remembered by process and rules. One for the whole operator; cheap to share.
#[derive(Default)]
pub struct UserForms {
    known: Mutex<BTreeMap<(String, Vec<String>), Form>>,
}

impl UserForms {
    /// Compares `lines` (`ACL LIST` of the process `run_id`) with the desired users; asks the server only for forms that it
    /// was not asked for before. The errors say which users' rules this server does not take.
    pub async fn compare(
        &self,
        connection: &Connection,
        run_id: &str,
        lines: &[String],
        desired: &BTreeMap<String, DesiredUser>,
    ) -> (UserReport, Vec<Error>) {
        let live: BTreeMap<&str, Form> = lines.iter().filter_map(|line| parse_line(line)).collect();
        let mut report = UserReport::default();
        let mut faults = Vec::new();
        for (name, user) in desired {
            let Some(live) = live.get(name.as_str()) else { continue };
            match self.form(connection, run_id, user).await {
                Ok(form) => {
                    if form == *live {
                        report.in_place.insert(name.clone());
                    }
                }
                Err(error) => faults.push(error),
            }
        }
        let is_foreign = |(name, form): &(&&str, &Form)| {
            !desired.contains_key(**name) && **name != SCRATCH && (**name != DEFAULT || form.on)
        };
        report.foreign = live.iter().filter(is_foreign).map(|(name, _)| (*name).to_owned()).collect();
        (report, faults)
    }

    async fn form(&self, connection: &Connection, run_id: &str, user: &DesiredUser) -> Result<Form> {
        let key = (run_id.to_owned(), user.rules.clone());
        if let Some(form) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(form.clone());
        }
        let form = ask_form(connection, user).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LARGEST_MEMORY {
            known.clear();
        }
        known.insert(key, form.clone());
        Ok(form)
    }
}

async fn ask_form(connection: &Connection, user: &DesiredUser) -> Result<Form> {
    let acl = |subcommand: &str, arguments: &[&str]| -> Cmd {
        let mut command = cmd("ACL");
        command.arg(subcommand).arg(arguments);
        command
    };
    let mut rules: Vec<&str> = vec![SCRATCH];
    rules.extend(user.rules.iter().map(String::as_str));
    rules.push("off");
    let commands = [acl("SETUSER", &rules), acl("LIST", &[]), acl("DELUSER", &[SCRATCH])];
    let mut replies = connection.query_all(&commands).await?.into_iter();
    let mut next = || replies.next().unwrap_or_else(|| Err(connection.bad_reply("ACL", "too few replies")));
    next()?;
    let lines = Vec::<String>::from_redis_value(next()?)
        .map_err(|error| connection.bad_reply("ACL LIST", error.to_string()))?;
    next()?;
    let scratch = lines.iter().filter_map(|line| parse_line(line)).find(|(name, _)| *name == SCRATCH);
    let (_, form) = scratch.ok_or_else(|| connection.bad_reply("ACL LIST", "no line of the user just set"))?;
    Ok(Form { on: is_on(user), ..form })
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
        assert!(is_on(&user(&["reset", "on", "+get"])));
        assert!(!is_on(&user(&["reset", "on", "off"])));
        assert!(!is_on(&user(&["on", "reset"])));
        assert!(!is_on(&user(&[])));
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_fail(line in "(user )?.{0,60}") {
            let _ = parse_line(&line);
        }
    }
}
