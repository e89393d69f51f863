//! Secrets: the system users' passwords, and the application's binding.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::inputs::Inputs;
use super::object::{metadata, object};
use crate::api::names;
use crate::model::cluster::Shard;
use crate::model::node_config::{FUNCTIONS_FILE, PREFIXES_FILE, REDIS_PORT, SENTINEL_PORT};
use crate::model::{Mode, NodeId, NodeKind};
use crate::validate::ValidatedLayer;

/// The system Secret, and the binding Secrets of the application and of the administrator, if the layer has them.
pub(super) fn secrets(inputs: &Inputs<'_>) -> Vec<Secret> {
    let (layer, credentials) = (&inputs.layer.identity.name, &inputs.credentials);
    let fields = json!({
        "operator-password": credentials.operator,
        "agent-password": credentials.agent,
        "replication-password": credentials.replication,
        "sentinel-password": credentials.sentinel,
        names::DATA_USERS_FILE: credentials.data_users,
        names::SENTINEL_USERS_FILE: credentials.sentinel_users,
        PREFIXES_FILE: inputs.prefixes,
    });
    let mut system = secret(inputs, &names::system_secret(layer), "Opaque", &fields);
    if !inputs.layer.keeps_data {
        let functions = ByteString(inputs.functions.to_vec());
        system.data.get_or_insert_default().insert(FUNCTIONS_FILE.to_owned(), functions);
    }
    let mut secrets = vec![system];
    if inputs.layer.application_access {
        let binding = service_binding(inputs.layer, "app", credentials.application);
        secrets.push(secret(inputs, &names::application_secret(layer), "servicebinding.io/redis", &binding));
    }
    if inputs.layer.administrator.is_some() {
        let binding = service_binding(inputs.layer, "admin", credentials.administrator);
        secrets.push(secret(inputs, &names::administrator_secret(layer), "servicebinding.io/redis", &binding));
    }
    secrets
}

fn secret(inputs: &Inputs<'_>, name: &str, kind: &str, fields: &Value) -> Secret {
    fill(object(json!({"metadata": metadata(&inputs.layer.identity, name, NodeKind::Data, &[]), "type": kind})), fields)
}

/// A Secret with these fields, all texts.
pub(super) fn fill(mut secret: Secret, fields: &Value) -> Secret {
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let data = fields.as_object().into_iter().flatten().map(|(field, value)| (field.clone(), ByteString(text(value))));
    secret.data = Some(data.collect());
    secret
}

/// What a stock client needs (Service Binding specification, "Workload projection"), with or without Sentinel.
pub(super) fn service_binding(layer: &ValidatedLayer, user: &str, password: &str) -> Value {
    let domain = &layer.service_domain;
    let host = format!("{}.{}.{domain}", names::primary_service(&layer.identity.name), layer.identity.namespace);
    let mut fields = json!({
        "type": "redis",
        "provider": "redoubt",
        "host": host,
        "port": REDIS_PORT.to_string(),
        "username": user,
        "password": password,
        "uri": format!("redis://{user}:{password}@{host}:{REDIS_PORT}/0"),
        "max-connections": layer.max_connections.to_string(),
    });
    if layer.mode == Mode::Cluster {
        // A client asks any of them where the slots are; what the list lacks it learns then.
        const SEEDS: u16 = 5;
        let (name, namespace) = (&layer.identity.name, &layer.identity.namespace);
        let own = (0..layer.shards.min(SEEDS)).map(|shard| names::node(name, Shard(shard).node(0)));
        let services = std::iter::once(names::primary_service(name)).chain(own);
        let seeds: Vec<String> =
            services.map(|service| format!("{service}.{namespace}.{domain}:{REDIS_PORT}")).collect();
        fields["cluster"] = json!("true");
        fields["seeds"] = json!(seeds.join(","));
    }
    if layer.sentinels > 0 {
        // Names, not addresses: the Secret is whole before any address is known. First the Service of all, which leaves out
        // a Sentinel that is away; then each one's own, whose address never changes.
        let (name, namespace) = (&layer.identity.name, &layer.identity.namespace);
        let own = (0..layer.sentinels).map(|ordinal| names::node(name, NodeId::sentinel(ordinal)));
        let services = std::iter::once(names::sentinels_service(name)).chain(own);
        let seeds: Vec<String> =
            services.map(|service| format!("{service}.{namespace}.{domain}:{SENTINEL_PORT}")).collect();
        fields["sentinels"] = json!(seeds.join(","));
        fields["sentinel-username"] = json!(user);
        fields["sentinel-password"] = json!(password);
        fields["master-name"] = json!(layer.identity.master_name());
    }
    fields
}
