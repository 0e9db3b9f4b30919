//! Planted leaks are told from caches by what they have live with the work.

use std::path::Path;

use memleax_targets::Target;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Monitor, RedisServer, has_program, may_trace, rounds};

/// Moments at which memleax looks: each is asked for when so much work is done. By bpf a look has its price.
const LOOKS: usize = 20;

/// Between two of them, of redis.
const REQUESTS: usize = 150;

/// Has memleax look now, and waits until it has.
fn look(monitor: &mut Monitor, number: usize) {
    monitor.signal(Signal::SIGUSR1);
    let heading = format!("Snapshot {number} (signal)");
    while !monitor.next().expect("it goes on").contains(&heading) {}
}

fn profile(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON")
}

/// The names of the functions of a call stack.
fn functions<'a>(profile: &'a Value, site: &Value) -> Vec<&'a str> {
    let frames = site["stack"]["frames"].as_array().expect("frames");
    let of_frame = |frame: &Value| profile["frames"][usize::try_from(frame.as_u64()?).ok()?]["functions"].as_array();
    frames.iter().filter_map(of_frame).flatten().filter_map(|function| function["name"].as_str()).collect()
}

/// The call stacks with a function of this name, and their verdicts.
fn verdicts<'a>(profile: &'a Value, function: &str) -> Vec<(&'a Value, &'a str)> {
    let sites = profile["sites"].as_array().expect("call stacks").iter();
    let of_it = sites.filter(|site| functions(profile, site).contains(&function));
    of_it.filter_map(|site| Some((site, site["trend"]["verdict"].as_str()?))).collect()
}

/// All call stacks that are called leaks, in words.
fn leaks(profile: &Value) -> Vec<String> {
    let sites = profile["sites"].as_array().expect("call stacks").iter();
    let leaks = sites.filter(|site| site["trend"]["verdict"] == "leak");
    leaks.map(|site| format!("{:?}", functions(profile, site))).collect()
}

/// A program of our own: growth is exact.
#[test]
fn a_leak_a_cache_and_a_batch() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (json, csv) = (folder.path().join("run.json"), folder.path().join("run.csv"));
    let outputs = [&json, &csv].map(|path| path.to_str().expect("test paths are UTF-8"));
    let mut target = Target::c("requests").libraries(&["-ldl", "-lpthread"]).start();
    let mut monitor = Monitor::attach(
        &target,
        &["--expire", "1h", "--reference", "handle_request", "-o", outputs[0], "-o", outputs[1]],
    );
    for number in 1..=LOOKS {
        target.ask("serve 180");
        look(&mut monitor, number);
    }
    let report = monitor.interrupt();
    target.quit();
    assert!(report.says("3,600 calls of handle_request"), "{report:?}");
    assert!(report.says("48.0 bytes ± 0 a call of handle_request, 1.00 ± 0 blocks"), "{report:?}");

    let profile = profile(&json);
    assert_eq!(profile["references"][0]["calls"], 3_600);
    let [(leak, "leak")] = verdicts(&profile, "leak")[..] else { panic!("{:?}", leaks(&profile)) };
    let pace = &leak["trend"]["per_call"][0]["pace"];
    assert_eq!((&pace["bytes"]["value"], &pace["blocks"]["value"]), (&48.0.into(), &1.0.into()), "{pace}");
    assert_eq!((&pace["bytes"]["low"], &pace["bytes"]["high"]), (&48.0.into(), &48.0.into()), "{pace}");
    let [(_, "levels_off")] = verdicts(&profile, "cache_store")[..] else { panic!("{:?}", leaks(&profile)) };
    assert_eq!(leaks(&profile).len(), 1, "{:?}", leaks(&profile));
    let ages: u64 = leak["ages_seconds"].as_array().expect("ages").iter().filter_map(|it| it["count"].as_u64()).sum();
    assert_eq!(ages, 3_600);

    let table = std::fs::read_to_string(&csv).expect("a table");
    let header = table.lines().next().expect("a header");
    assert!(header.starts_with("seconds,reference:handle_request,live bytes,live blocks,1 leak bytes,"), "{header}");
    let last: Vec<&str> = table.lines().last().expect("the end").split(',').collect();
    assert_eq!((last[1], last[4], last[5]), ("3600", "172800", "3600"), "{last:?}");
}

/// A real server, with a bounded cache and a module that leaks.
#[test]
fn a_leak_per_command_of_redis_beside_its_cache() {
    if !may_trace() || !has_program("redis-server") {
        return;
    }
    let module = Target::c("redis_leak").flags(&["-shared", "-fPIC"]).build();
    for round in 0..rounds(1, 10) {
        redis(&module.path, u64::try_from(round).unwrap_or(0));
    }
}

fn redis(module: &Path, seed: u64) {
    let module = module.to_str().expect("test paths are UTF-8");
    // Its log of slow commands would fill, on a slow machine, and be far from full.
    let options = ["--maxmemory-policy", "allkeys-lru", "--slowlog-log-slower-than", "-1"];
    let server = RedisServer::start(&[&["--loadmodule", module][..], &options].concat());
    let mut client = server.connect();
    let info = client.ask(&["INFO", "memory"]);
    let info = client.bulk(info.trim_start_matches('$').parse().expect("a length"));
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("its memory");
    let limit = used.trim().parse::<u64>().expect("a number") + 200_000;
    assert_eq!(client.ask(&["CONFIG", "SET", "maxmemory", &limit.to_string()]), "+OK");
    assert_eq!(client.ask(&["LEAK"]), "+OK");

    let folder = tempfile::tempdir().expect("a temporary directory");
    let json = folder.path().join("run.json");
    let options = ["--expire", "1h", "--reference", "call", "-o", json.to_str().expect("test paths are UTF-8")];
    let mut monitor = Monitor::attach_to(server.process.id(), &options);
    let mut random = 88_172_645_463_325_252 + seed;
    for number in 1..=LOOKS {
        for _ in 0..REQUESTS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = format!("key:{}", random % 5_000);
            assert_eq!(client.ask(&["SET", &key, &"v".repeat(400)]), "+OK");
            assert_eq!(client.ask(&["LEAK"]), "+OK");
        }
        look(&mut monitor, number);
    }
    let report = monitor.interrupt();
    let profile = profile(&json);
    assert_eq!(profile["references"][0]["calls"], 2 * REQUESTS * LOOKS, "{report:?}");
    let [(leak, "leak")] = verdicts(&profile, "leak_per_command")[..] else { panic!("{report:?}") };
    assert_eq!(leak["live"], serde_json::json!({"count": REQUESTS * LOOKS, "bytes": 48 * REQUESTS * LOOKS}));
    let slope = leak["trend"]["per_call"][0]["pace"]["bytes"]["value"].as_f64().expect("a slope");
    assert!((slope - 24.0).abs() < 0.1, "{slope}");
    assert_eq!(leaks(&profile).len(), 1, "{:?}\n{report:?}", leaks(&profile));
    // The cache has filled, and is kept at its size by evictions.
    let cached = profile["sites"].as_array().expect("call stacks").iter();
    let cached =
        cached.filter(|site| site["live"]["bytes"].as_u64() > Some(20_000) && site["trend"]["verdict"] != "leak");
    let verdicts: Vec<&Value> = cached.map(|site| &site["trend"]["verdict"]).collect();
    assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| **verdict == "levels_off"), "{report:?}");
}
