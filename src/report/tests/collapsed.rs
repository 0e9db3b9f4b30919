//! inferno, the port of the original flamegraph.pl, and gprof2dot's own reader.

use std::process::Command;

use super::{consumer, folder, output_of, profile, write};
use crate::profile::View;

#[test]
fn inferno_draws_each_frame_with_its_bytes() {
    let folder = folder();
    let (path, _) = write(folder.path(), "a.folded", &profile(), &View::Peak);
    let Some(inferno) = consumer("bin/inferno-flamegraph") else { return };
    let svg = output_of(Command::new(inferno).args(["--countname=bytes"]).arg(path));
    let mut titles: Vec<&str> =
        svg.split("<title>").skip(1).filter_map(|text| text.split_once("</title>").map(|(title, _)| title)).collect();
    titles.sort_unstable();
    assert_eq!(
        titles,
        [
            "/srv/plug in.so+0x4242 (4,000 bytes, 83.89%)",
            "Pool::take(int) (768 bytes, 16.11%)",
            "all (4,768 bytes, 100%)",
            "evil:\u{fffd}&lt;b&gt;&quot;&amp;\u{fffd}[31m λ (4,000 bytes, 83.89%)",
            "main (4,768 bytes, 100.00%)",
            "malloc (4,000 bytes, 83.89%)",
            "malloc (768 bytes, 16.11%)",
            "serve(std::vector&lt;int&gt; const&amp;) (768 bytes, 16.11%)",
        ]
    );
}

#[test]
fn gprof2dot_reads_them_too() {
    let Some(python) = consumer("bin/python3") else { return };
    let folder = folder();
    let (path, _) = write(folder.path(), "a.folded", &profile(), &View::Peak);
    let options = ["-m", "gprof2dot", "--format=collapse", "--node-thres=0", "--edge-thres=0"];
    let graph = output_of(Command::new(&python).args(options).arg(path));
    for text in [r"malloc\n100.00%\n(100.00%)", r"/srv/plug in.so+0x4242\n83.89%\n(0.00%)", r"main\n100.00%\n(0.00%)"] {
        assert!(graph.contains(text), "no {text} in\n{graph}");
    }
}
