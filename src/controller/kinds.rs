//! Which kinds of use the API server knows. An operator may be upgraded before the definitions are: what has no definition has no
//! objects, and a watch of it would hold up every layer.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;

use crate::api::names::{GROUP, VERSION};
use crate::failure::request;
use crate::model::UseKind;
use crate::telemetry::Chain;

/// Between two looks for a definition that was not there.
const POLL_EVERY: Duration = Duration::from_secs(15);

/// The kinds whose definition is installed. Where that cannot be found out, all.
pub(super) async fn installed(client: &Client) -> Vec<UseKind> {
    let version = format!("{GROUP}/{VERSION}");
    let words = format!("the resources of {version}");
    match request("list", &words, client.list_api_group_resources(&version)).await {
        Ok(list) => {
            let (kinds, missing) = among(&list.resources);
            for kind in missing {
                let kind = kind.words().kind;
                tracing::warn!(kind, "its definition is not installed: install the chart redoubt-crds of this version");
            }
            kinds
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot find out which definitions are installed");
            UseKind::ALL.to_vec()
        }
    }
}

/// Waits until the definition of one of these kinds is installed; without end if there are none.
pub(super) async fn one_is_installed(client: &Client, missing: &[UseKind]) {
    if missing.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        let list = client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await;
        if list.is_ok_and(|list| among(&list.resources).0.iter().any(|kind| missing.contains(kind))) {
            return;
        }
    }
}

/// The kinds that are among the resources of our group, and those that are not.
fn among(resources: &[APIResource]) -> (Vec<UseKind>, Vec<UseKind>) {
    let is_there = |kind: &UseKind| resources.iter().any(|resource| resource.kind == kind.words().kind);
    UseKind::ALL.into_iter().partition(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_without_a_definition_is_missing() {
        let resource = |kind: &str| APIResource { kind: kind.to_owned(), ..APIResource::default() };
        let (there, missing) = among(&[resource("DataLayer"), resource("SessionStore")]);
        assert_eq!(there, [UseKind::SessionStore]);
        assert_eq!(missing.len(), UseKind::ALL.len() - 1);
        assert_eq!(among(&UseKind::ALL.map(|kind| resource(kind.words().kind))).1, []);
    }
}
