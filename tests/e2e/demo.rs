//! `make demo`: what it prints was measured, and what it claims holds.

use std::process::Command;
use std::time::Instant;

use crate::commands::kubectl;

const NAMESPACE: &str = "e2e-demo";

/// Runs the tour with the operator that is here; what it printed.
fn tour(arguments: &[&str]) -> String {
    let mut tour = Command::new("examples/demo/tour");
    tour.args(arguments).env("NAMESPACE", NAMESPACE).env("PYTHONDONTWRITEBYTECODE", "1");
    // The image is on the nodes: nothing is to be built within a test.
    let output = tour.env("IMAGE", "localhost/redoubt:dev").output().expect("python3 is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The numbers of the only line that has these words, in order.
fn numbers(text: &str, words: &str) -> Vec<f64> {
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(words)).collect();
    assert_eq!(lines.len(), 1, "{words}: {lines:?}");
    let is_part = |letter: char| letter.is_ascii_digit() || letter == '.';
    lines[0].split(|letter| !is_part(letter)).filter_map(|word| word.trim_end_matches('.').parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "README.md, walked before, runs the same tour, which stops at the first claim that does not hold: make soak"]
async fn the_demo_measures_what_it_claims_and_ends_what_it_made() {
    crate::place::operator().await;
    let began = Instant::now();
    let text = tour(&[]);
    println!("{text}\nthe tour took {:?}", began.elapsed());

    assert!(numbers(&text, "s after it was applied")[0] > 0.0);
    let [before, after] = numbers(&text, "a read renewed it")[..] else { panic!("two times to live") };
    assert!(before < after && after <= 1_800.0, "{before} s before, {after} s after");
    let [saved, refused, returned, of] = numbers(&text, "saves before the revocation")[..4] else {
        panic!("four counts")
    };
    assert!(saved > 0.0 && refused > 0.0 && (returned, of) == (0.0, 50.0));
    for (event, words) in [("the primary's death", "was killed"), ("the loss of all pods", "every pod is another")] {
        // The machine is noisy: the figures are held to an order of magnitude only.
        let line = text.lines().find(|line| line.contains(words)).expect("a line of the event");
        let gap = line.split(" ms without").next().and_then(|head| head.rsplit(' ').next()?.parse::<u64>().ok());
        assert!(gap.is_some_and(|gap| gap < 60_000), "{event}: {line}");
        assert_eq!(numbers(&text, &format!("after {event}"))[..], [200.0, 0.0, 0.0], "{event}");
    }
    let counts = numbers(&text, "sessions ended in one call");
    assert!(matches!(counts[..], [5.0, 5.0, _, 0.0]), "the login and four devices: {counts:?}");
    let [calls, _, admitted, _] = numbers(&text, "may come again in")[..] else { panic!("four numbers") };
    assert!((79.5..80.5).contains(&calls) && (40.0..80.0).contains(&admitted), "{admitted} of {calls}");
    let [reads, stale, asked, errors] = numbers(&text, "reads of an entry whose TTL was over")[..4] else {
        panic!("four counts")
    };
    assert!(reads > 0.0 && (stale, asked, errors) == (reads, 1.0, 0.0));

    tour(&["--down"]);
    assert_eq!(kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"]), "");
    crate::place::operator_is_there();
}
