//! The agents' own password, and why a server does not take it.

use sha2::{Digest as _, Sha256};

use super::config::{Environment, read_secret};
use super::{ConfigError, chain};
use crate::redis::{Connection, Endpoint, Error, Secret, users};

/// File of the agents' password.
const AGENT_PASSWORD: &str = "agent-password";

/// The agents' password, as servers took it last and as the Secret has it now.
pub(super) struct AgentPassword {
    taken: Secret,
    filed: Secret,
}

impl AgentPassword {
    pub(super) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let filed = read_secret(environment, AGENT_PASSWORD)?;
        Ok(Self { taken: filed.clone(), filed })
    }

    /// Reads the file again. Where it cannot be read, what it had counts.
    pub(super) fn refresh(&mut self, environment: &Environment) {
        if let Ok(filed) = read_secret(environment, AGENT_PASSWORD) {
            self.filed = filed;
        }
    }

    /// A server as the agents' user.
    pub(super) fn endpoint(&self, address: String, port: u16) -> Endpoint {
        Endpoint {
            address,
            port,
            username: users::AGENT.to_owned(),
            password: self.taken.clone(),
            other_password: (self.filed != self.taken).then(|| self.filed.clone()),
        }
    }

    /// Takes over the password that the own server took.
    pub(super) fn note_login(&mut self, endpoint: &Endpoint, connection: &Connection) {
        if let Some(other) = endpoint.other_password.as_ref().filter(|_| connection.took_other_password()) {
            tracing::warn!("the server takes the agents' password that the Secret has now, and not that of before");
            self.taken = other.clone();
        }
    }

    /// Whether one of these users is the agents' with one of the passwords.
    pub(super) fn fits(&self, users_file: &str) -> bool {
        let line = users_file.lines().find(|line| line.split_whitespace().nth(1) == Some(users::AGENT));
        let has = |password: &Secret| {
            let digest = format!("#{}", hex::encode(Sha256::digest(password.reveal())));
            line.is_some_and(|line| line.split_whitespace().any(|word| word == digest))
        };
        has(&self.taken) || has(&self.filed)
    }
}

/// In the words of a status, why a user of ours is of no use there.
pub(super) fn refusal(user: &str, error: &Error) -> String {
    match error {
        Error::Connect { .. } => {
            format!("{user} is refused with the password in use and with that of the Secret: {}", chain(error))
        }
        Error::Full { .. } => format!("{user} cannot log in: {error}"),
        Error::Command { .. } | Error::Reply { .. } => format!("{user} may not do what it has to: {}", chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_fit_by_the_digest_of_the_agents_own_line_only() {
        let secret = |text: &str| Secret::new(text);
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let own = AgentPassword { taken: secret("now"), filed: secret("file") };
        let users = |name: &str, password: &str| {
            format!("user other on #{}\nuser {name} reset on #{}\n", digest("x"), digest(password))
        };
        assert!(own.fits(&users("redoubt-agent", "now")) && own.fits(&users("redoubt-agent", "file")));
        assert!(
            !own.fits(&users("redoubt-agent", "x")) && !own.fits(&users("redoubt-operator", "now")) && !own.fits("")
        );
    }
}
