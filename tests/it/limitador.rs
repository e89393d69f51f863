//! Limitador's own Redis storage with the URL that a rate limit policy exports for it.

use std::process::Stdio;
use std::time::Duration;

use redis::cmd;
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::rights::Grant;
use redoubt::redis::server;
use redoubt::redis::users::use_on_data;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::support::bound_layer::installed;
use crate::support::engine_process::{PORT, Process, engines};

const USER: &str = "rlp.edge.limitador";
const PASSWORD: &str = "p";
const ENDS: Duration = Duration::from_mins(1);

#[tokio::test]
async fn limitador_counts_with_what_a_policy_exports_and_its_keys_are_the_policys() {
    let program = installed("limitador").await.join("limitador-client");
    let digest = hex::encode(Sha256::digest(PASSWORD));
    let functions = Functions::new();
    let grant = Grant { scripts: true, ..Grant::plain(UseKind::RateLimitPolicy, "namespace:", &functions) };
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let admin = process.connect().await;
        server::acl_set_user(&admin, USER, &use_on_data(grant, &digest).rules).await.unwrap();
        let mut command = Command::new(&program);
        command.env("URL", format!("redis://{USER}:{PASSWORD}@{}:{PORT}/0", process.address)).kill_on_drop(true);
        command.stderr(Stdio::inherit());
        let output = tokio::time::timeout(ENDS, command.output()).await.expect("it does not end").unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {lines}", engine.name);
        let claims = ["three of five admitted", "counters read back", "a limit with an id refused"];
        assert_eq!(lines.lines().collect::<Vec<_>>(), claims, "{}", engine.name);
        let keys: Vec<String> = admin.query(cmd("KEYS").arg("*")).await.unwrap();
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("namespace:{shop}")), "{keys:?}");
    }
}
