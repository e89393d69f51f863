//! How layers come into being.

use serde_json::json;

use crate::stage::{ENGINES, Stage};

#[tokio::test]
async fn a_layer_becomes_ready_on_each_engine() {
    for (name, image) in ENGINES {
        let stage = Stage::set(&format!("creation-{name}")).await;
        let layer = stage.layer("web", json!({"engine": {"image": image}})).await;
        println!("{name}: Ready after {:.2?}", layer.ready().await);
        let primary = layer.heals().await;
        assert!(layer.set("key").await, "{primary} takes a write");
        stage.strike().await;
    }
}
