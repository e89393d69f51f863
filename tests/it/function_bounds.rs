//! What users' libraries may take of a server that many share: memory of all of them together.

use redis::cmd;
use redoubt::dataplane::{Library, built_in_libraries, load, user_library};
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
