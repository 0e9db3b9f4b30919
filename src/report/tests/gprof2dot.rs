//! gprof2dot from PyPI.

use std::process::Command;

use super::{consumer, folder, output_of, profile, write};
use crate::profile::View;

#[test]
fn draws_each_function_and_call_with_its_share() {
    let Some(python) = consumer("bin/python3") else { return };
    let folder = folder();
    let (path, _) = write(folder.path(), "a.gprof2dot.json", &profile(), &View::Peak);
    let options = ["-m", "gprof2dot", "--format=json", "--node-thres=0", "--edge-thres=0", "--strip"];
    let graph = output_of(Command::new(&python).args(options).arg(path));
    let nodes: Vec<&str> = graph.lines().filter(|line| line.contains(" [color=") && !line.contains("->")).collect();
    let edges: Vec<&str> = graph.lines().filter(|line| line.contains("->")).collect();
    // Its share with callees, and by itself.
    for label in [
        r#"label="libc.so.6\nmalloc\n100.00%\n(100.00%)\n2×""#,
        r#"label="plug in.so\n/srv/plug in.so+0x4242\n83.89%\n(0.00%)"#,
        r#"label="server\nmain\n100.00%\n(0.00%)"#,
        r#"label="server\nPool::take\n16.11%\n(0.00%)"#,
        r#"label="server\nserve\n16.11%\n(0.00%)"#,
        r"\n83.89%\n(0.00%)",
    ] {
        assert!(nodes.iter().any(|node| node.contains(label)), "no {label} in\n{graph}");
    }
    assert_eq!(nodes.len(), 6, "{graph}");
    // Functions are numbered by their first appearance, the dearest call stack first: malloc, evil, the plug-in, main, take, serve.
    for (edge, share) in [
        ("1 -> 0", "83.89%"),
        ("2 -> 1", "83.89%"),
        ("3 -> 2", "83.89%"),
        ("4 -> 0", "16.11%"),
        ("5 -> 4", "16.11%"),
        ("3 -> 5", "16.11%"),
    ] {
        let drawn = edges.iter().any(|line| line.contains(edge) && line.contains(&format!("label=\"{share}\"")));
        assert!(drawn, "no {edge} with {share} in\n{graph}");
    }
    assert_eq!(edges.len(), 6, "{graph}");
}

#[test]
fn takes_a_profile_in_which_nothing_costs_anything() {
    let Some(python) = consumer("bin/python3") else { return };
    let folder = folder();
    let (path, _) = write(folder.path(), "a.gprof2dot.json", &profile(), &View::Growth { from: Some(1), to: Some(1) });
    let graph = output_of(Command::new(&python).args(["-m", "gprof2dot", "--format=json"]).arg(path));
    assert!(graph.starts_with("digraph {") && !graph.contains("->"), "{graph}");
}
