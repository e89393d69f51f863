//! What Prometheus and Grafana are given: alerts and dashboard name metrics that exist, and the documents name all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;

use redoubt::model::UseKind;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::bound_layer::installed;

/// Files whose text has the metrics but those of what functions count, each as its name and then its help, and who serves them.
const SOURCES: [(&str, &str); 4] = [
    ("agent", "src/agent/exporter.rs"),
    ("agent", "src/agent/audit/metrics.rs"),
    ("operator", "src/metrics.rs"),
    ("operator", "src/controller/object_metrics.rs"),
];
const ALERTS: &str = "charts/redoubt/files/alerts.yaml";
const DASHBOARD: &str = "charts/redoubt/files/dashboard.json";
const GUIDE: &str = "docs/monitoring.md";

/// Every metric: name → who serves it, and its help.
pub fn metrics() -> BTreeMap<String, (&'static str, String)> {
    let mut found = BTreeMap::new();
    for (served, path) in SOURCES {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let literals: Vec<&str> = code.split('"').collect();
        // Every second part is inside of quotes; what is between a name and its help is a comma.
        for index in (1..literals.len().saturating_sub(2)).step_by(2) {
            let (name, between, help) = (literals[index], literals[index + 1], literals[index + 2]);
            let is_name = (name.starts_with("redis_") || name.starts_with("redoubt_")) && !name.contains(' ');
            if is_name && between.trim() == "," && help.contains(|letter: char| letter.is_uppercase() || letter == ' ')
            {
                found.insert(name.to_owned(), (served, help.trim_end_matches('.').to_owned()));
            }
        }
    }
    for kind in UseKind::ALL {
        for (column, help) in kind.words().counters.iter().flat_map(|columns| columns.names) {
            found.insert(format!("{}_{column}_total", kind.words().library), ("agent", (*help).to_owned()));
        }
    }
    found
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn rules() -> Vec<Value> {
    let groups = yaml(ALERTS)["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every expression of the alerts and the dashboard, with its place. Grafana's variables are put in.
fn expressions() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = rules()
        .iter()
        .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned()))
        .collect();
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(DASHBOARD).unwrap()).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    found
}

/// The metrics that each expression names, as Prometheus reads it.
async fn asked_for(expressions: &[String]) -> Vec<Vec<String>> {
    let mut program = Command::new(installed("python").await.join("venv/bin/python"));
    program.arg("tests/clients/python/promql.py").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = program.spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(expressions).unwrap()).await.unwrap();
    drop(input);
    let output = running.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let known = metrics();
    assert!(known.len() > 80, "only {} metrics were found", known.len());
    let (places, texts): (Vec<String>, Vec<String>) = expressions().into_iter().unzip();
    let asked = asked_for(&texts).await;
    assert_eq!(asked.len(), texts.len());
    for ((place, text), names) in places.iter().zip(&texts).zip(&asked) {
        assert!(!names.is_empty(), "{place} asks for nothing: {text}");
        for name in names {
            // A histogram has three names.
            let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known.contains_key(name) || known.contains_key(histogram), "{place}: there is no metric {name}");
        }
    }
}

#[test]
fn the_guide_tells_what_to_do_about_each_alert_and_names_metrics_that_there_are() {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let told: BTreeSet<&str> =
        guide.lines().filter_map(|line| line.strip_prefix("| `Redoubt")?.split('`').next()).collect();
    let alerts = rules();
    let fire: BTreeSet<&str> =
        alerts.iter().map(|rule| rule["alert"].as_str().unwrap().trim_start_matches("Redoubt")).collect();
    assert_eq!(told, fire);
    let known = metrics();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for word in guide.split(|letter| !is_letter(letter)) {
        if (word.starts_with("redis_") || word.starts_with("redoubt_")) && !word.starts_with("redoubt_dev_") {
            assert!(known.contains_key(word), "{GUIDE} names {word}");
        }
    }
}

/// What an autoscaler goes by, and what to watch.
#[test]
fn the_page_of_spikes_names_metrics_and_alerts_that_there_are() {
    let page = fs::read_to_string("docs/uses/spikes.md").unwrap();
    let alerts: Vec<String> = rules().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    let (known, mut metrics_named, mut alerts_named) = (metrics(), 0, 0);
    for word in page.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
        if word.starts_with("redis_") || word.ends_with("_total") {
            assert!(known.contains_key(word), "there is no metric {word}");
            metrics_named += 1;
        } else if word.starts_with("Redoubt") && word != "Redoubt" {
            assert!(alerts.iter().any(|alert| alert == word), "there is no alert {word}");
            alerts_named += 1;
        }
    }
    assert!(metrics_named > 4 && alerts_named > 1, "{metrics_named} and {alerts_named}");
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_it_means() {
    for rule in rules() {
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{rule}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.ends_with('.')), "{rule}");
        }
    }
}
