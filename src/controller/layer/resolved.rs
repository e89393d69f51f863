//! Defaults that were decided when a layer was created and that every later pass goes on with.

use serde::{Deserialize, Serialize};

use super::super::context::Defaults;
use crate::model::purpose::Shares;
use crate::observe::kubernetes::Children;
use crate::validate::{DataVolumes, ResolvedDefaults, ValidatedLayer};

/// Defaults that were decided when the layer was created, as they are recorded on its StatefulSets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::controller) struct Resolved {
    engine_image: String,
    agent_image: String,
    /// Size of each data volume, bytes; 0: the data nodes have none. `None`: not decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_size: Option<u64>,
    /// How memory is divided. `None`: not decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<Shares>,
}

impl Resolved {
    pub(in crate::controller) fn of(children: &Children, defaults: &Defaults) -> Self {
        let recorded = children.resolved_defaults().and_then(|text| serde_json::from_str(text).ok());
        recorded.unwrap_or_else(|| Self {
            engine_image: defaults.engine_image.clone(),
            agent_image: defaults.agent_image.clone(),
            volume_size: None,
            shares: None,
        })
    }

    pub(in crate::controller) fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and a number are always JSON")
    }

    fn volumes(&self) -> DataVolumes {
        match self.volume_size {
            None => DataVolumes::Undecided,
            Some(0) => DataVolumes::Without,
            Some(size) => DataVolumes::Of(size),
        }
    }

    /// With what was decided for this layer.
    pub(in crate::controller) fn decided(self, layer: &ValidatedLayer) -> Self {
        let volume_size = match self.volumes().or_decide(layer.volume.as_ref()) {
            DataVolumes::Undecided => None,
            DataVolumes::Without => Some(0),
            DataVolumes::Of(size) => Some(size),
        };
        Self { volume_size, shares: Some(layer.shares), ..self }
    }

    pub(in crate::controller) fn for_validation(&self, defaults: &Defaults) -> ResolvedDefaults {
        ResolvedDefaults {
            engine_image: self.engine_image.clone(),
            agent_image: self.agent_image.clone(),
            volumes: self.volumes(),
            shares: self.shares,
            service_domain: defaults.service_domain.clone(),
            allowed_images: defaults.allowed_images.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Purpose;

    fn recorded(text: &str) -> Resolved {
        serde_json::from_str(text).unwrap()
    }

    fn defaults() -> Defaults {
        Defaults {
            engine_image: "e".to_owned(),
            agent_image: "a".to_owned(),
            service_domain: "svc".to_owned(),
            allowed_images: Vec::new(),
            forbids_dedicated: false,
        }
    }

    #[test]
    fn what_was_recorded_of_volumes_is_what_is_validated_against() {
        let images = r#""engineImage":"e","agentImage":"a""#;
        for (text, volumes) in [
            (format!("{{{images}}}"), DataVolumes::Undecided),
            (format!(r#"{{{images},"volumeSize":0}}"#), DataVolumes::Without),
            (format!(r#"{{{images},"volumeSize":1073741824}}"#), DataVolumes::Of(1 << 30)),
        ] {
            assert_eq!(recorded(&text).for_validation(&defaults()).volumes, volumes);
            assert_eq!(recorded(&text).text(), text);
        }
    }

    #[test]
    fn what_was_recorded_of_shares_is_what_is_validated_against() {
        let text = r#"{"engineImage":"e","agentImage":"a","shares":{"purpose":"Cache","maxmemoryPercent":70,"clientPercent":9}}"#;
        let shares = recorded(text).for_validation(&defaults()).shares.unwrap();
        assert_eq!((shares.purpose, shares.maxmemory_percent, shares.client_percent), (Purpose::Cache, 70, 9));
        assert_eq!(recorded(text).text(), text);
    }
}
