//! What users' libraries may take of a server that many share: time of each load, and memory of all of them together.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::cmd;
use redoubt::act::{self, StepOutcome, StepResources, Writer};
use redoubt::dataplane::{Library, built_in_libraries, load, user_library};
use redoubt::metrics::Metrics;
use redoubt::model::NodeId;
use redoubt::plan::Step;
use redoubt::redis::{Connection, functions, server, users};

use crate::redis_users::{connect, data_node};
use crate::support::engine_process::engines;

fn library(name: &str, body: &str) -> Library {
    user_library(
        "shop",
        name,
        &format!("#!lua name=l\nredis.register_function('{name}', function() return 1 end)\n{body}\n"),
    )
    .unwrap()
}

/// A library that keeps this many MiB of text.
fn hoard(name: &str, mebibytes: u32) -> Library {
    let body = format!(
        "local s, kept = 'x', {{}}\nfor i = 1, 20 do s = s .. s end\nfor i = 1, {mebibytes} do kept[i] = s .. '{name}' .. i end\n\
         redis.register_function('{name}_kept', function() return #kept end)"
    );
    library(name, &body)
}

async fn refusal(connection: &Connection, library: &Library) -> String {
    load(connection, library).await.unwrap_err().refusal().unwrap()
}

/// The memory of the Lua, bytes.
async fn lua_bytes(connection: &Connection) -> u64 {
    server::info(connection).await.unwrap().number("used_memory_vm_functions").unwrap()
}

/// A server frees garbage when its Lua needs memory: the next library would seem to take less than it does.
#[tokio::test]
async fn what_a_refused_library_left_behind_hides_nothing_of_the_next_and_goes() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        for library in built_in_libraries() {
            load(&operator, &library).await.unwrap();
        }
        let garbage = hoard("garbage", 20).source + "error('x')\n";
        let garbage = Library { source: garbage, ..hoard("garbage", 20) };
        for _ in 0..3 {
            refusal(&operator, &garbage).await;
        }
        let left = lua_bytes(&operator).await;
        assert!(left < 4 << 20, "{}: {left}", engine.name);
        for mebibytes in [20, 30] {
            let told = refusal(&operator, &hoard("large", mebibytes)).await;
            assert!(told.contains("MiB of memory"), "{}: {told}", engine.name);
            let left = lua_bytes(&operator).await;
            assert!(left < 4 << 20, "{}: {left}", engine.name);
        }
    }
}

#[tokio::test]
async fn the_libraries_of_all_users_together_take_no_more_than_their_share_of_a_server() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        for library in built_in_libraries() {
            load(&operator, &library).await.unwrap();
        }
        for name in ["first", "second"] {
            load(&operator, &hoard(name, 6)).await.unwrap();
        }
        let third = hoard("third", 6);
        let told = refusal(&operator, &third).await;
        assert!(told.contains("loaded already take"), "{}: {told}", engine.name);
        let answer: u64 = operator.query(cmd("FCALL_RO").arg("redoubt_collect").arg(0)).await.unwrap();
        assert!(answer < 16 << 10, "{}: {answer} KiB", engine.name);
        // A small one has room, and one that goes makes room.
        load(&operator, &library("small", "")).await.unwrap();
        functions::delete(&operator, &hoard("first", 6).name).await.unwrap();
        load(&operator, &third).await.unwrap();
    }
}

/// A server does nothing else for the half second that a source without an end gets. The others wait for the next plan, which knows.
#[tokio::test]
async fn after_a_library_that_held_the_server_up_no_other_is_loaded_in_the_same_plan() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let run_id = server::info(&operator).await.unwrap().run_id().unwrap().to_owned();
        let id = NodeId::data(0);
        let mut libraries = vec![library("a_quick_one", "")];
        libraries.extend((0..3).map(|number| library(&format!("b_looping_{number}"), "while true do end")));
        libraries.push(library("c_quick_one", ""));
        let steps: Vec<Step> = libraries
            .iter()
            .map(|it| Step::LoadLibrary {
                node: id,
                run_id: run_id.clone(),
                library: it.name.clone(),
                digest: it.digest.clone(),
            })
            .collect();
        let desired = crate::planner::desired("1");
        let resources = StepResources {
            layer: &desired.layer,
            desired: &desired,
            primary_service: &k8s_openapi::api::core::v1::Service::default(),
            services: &BTreeMap::new(),
            workloads: &BTreeMap::new(),
            documents: &BTreeMap::new(),
            live_services: &BTreeMap::new(),
            live_workloads: &BTreeMap::new(),
            libraries: &libraries,
            connections: &BTreeMap::from([(id, operator.clone())]),
            endpoints: &BTreeMap::new(),
            addresses: &BTreeMap::new(),
        };
        let writer = Writer::new(kube::Client::new(axum::Router::new(), "none"), Metrics::new().unwrap());
        let ended = act::carry_out(&writer, resources, &steps).await;
        let outcomes: Vec<&StepOutcome> = ended.outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert!(
            matches!(
                outcomes.as_slice(),
                [
                    StepOutcome::Done,
                    StepOutcome::Refused(_),
                    StepOutcome::Dropped(_),
                    StepOutcome::Dropped(_),
                    StepOutcome::Dropped(_)
                ]
            ),
            "{}: {outcomes:?}",
            engine.name
        );
        let (quick, looping) = (&ended.load_times[&libraries[0].name], &ended.load_times[&libraries[1].name]);
        let limit = Duration::from_millis(500);
        assert!(*quick < limit / 10 && *looping >= limit && *looping < 2 * limit, "{}: {ended:?}", engine.name);
        assert_eq!(ended.load_times.len(), 2);
    }
}
