use anstream::StripStream;
use insta::assert_snapshot;

use super::*;
use crate::event::Timestamp;
use crate::profile::{Moment, SiteOrder, sample};

const USUAL: Extent = Extent { top: 50, threshold: 0.0 };

fn shown_of(profile: &Profile, topic: Topic, extent: Extent) -> String {
    let mut output = StripStream::new(Vec::new());
    write_topics(profile, &[topic], extent, &mut output).expect("a view that can be had");
    String::from_utf8(output.into_inner()).expect("UTF-8")
}

fn shown(topic: Topic) -> String {
    shown_of(&sample::profile(), topic, USUAL)
}

#[test]
fn the_summary_has_totals_losses_and_remarks() {
    assert_snapshot!(shown(Topic::Summary), @r"
    == Process 4321: /srv/server --port 80
    -- Watched for 10.0 s from 2023-11-14 22:13:20 UTC by ptrace; from its first instruction. memleax 0.1.0.
    -- The program ended with status 0.
        allocated    14 blocks, 7.1 KiB (1 block, 728 bytes a second)
        freed        5 blocks, 6.1 KiB
        never freed  9 blocks, 1.0 KiB in 2 call stacks
        expired      8 blocks, 896 bytes lived longer than 1.0 s; freed since: 1
        peak         9 blocks, 4.7 KiB after 5.0 s
        temporary    1 block, 128 bytes (7.1% of all) freed before the next allocation
        call stacks  3
        snapshots    1
    Warning: 2 allocator calls never returned (longjmp, exception, end of the thread): what they allocated is not counted.
    -- 3 frees of memory not known to be live ignored: from before monitoring began, or the allocator's own.
    -- Names of one library are missing.
    ");
    let mut profile = sample::profile();
    profile.run.ending = None;
    profile.run.by_event = false;
    profile.run.launched = false;
    profile.sites[0].temporary = None;
    assert_snapshot!(shown_of(&profile, Topic::Summary, USUAL), @r"
    == Process 4321: /srv/server --port 80
    -- Watched for 10.0 s from 2023-11-14 22:13:20 UTC by ptrace; attached while it ran. memleax 0.1.0.
    Warning: The recording breaks off; the numbers are those of its last whole entry.
        allocated    14 blocks, 7.1 KiB (1 block, 728 bytes a second)
        freed        5 blocks, 6.1 KiB
        never freed  9 blocks, 1.0 KiB in 2 call stacks
        expired      8 blocks, 896 bytes lived longer than 1.0 s; freed since: 1
        peak         9 blocks, 4.7 KiB after 5.0 s, as seen by looks at the target a second apart or more
        call stacks  3
        snapshots    1
    Warning: 2 allocator calls never returned (longjmp, exception, end of the thread): what they allocated is not counted.
    -- 3 frees of memory not known to be live ignored: from before monitoring began, or the allocator's own.
    -- Names of one library are missing.
    ");
}

#[test]
fn leaks_are_in_ascending_order() {
    assert_snapshot!(shown(Topic::View(View::Leaks)), @r"
    == Never freed: 9 blocks, 1.0 KiB in 2 call stacks (in ascending order)

    CallStack[2]: 1 block, 0 bytes (0.0%)
        allocated 1 block, 0 bytes; freed 0 blocks, 0 bytes; never freed 1 block, 0 bytes
        the oldest live one is 10.0 s old
        0x00005555555ea930  libc.so.6  malloc()+0
        0x00007fff12345678  ??
        -- backtrace ends here: this code is in no file

    CallStack[1]: 8 blocks, 1.0 KiB (100.0%)
        allocated 10 blocks, 1.3 KiB; freed 2 blocks, 256 bytes; never freed 8 blocks, 1.0 KiB
        freed blocks lived 1.0 µs to 2.0 s, 1.0 s on average; the oldest live one is 9.0 s old
        live blocks by age: 1 below 1 s, 2 from 1.0 s, 2 from 2.0 s, 3 from 8.0 s
        0x00005555555ea930  libc.so.6  malloc()+0
        [inlined]           server  Pool::take(int)  /src/server.cpp:12
        0x0000555555551250  server  serve(std::vector<int> const&)+14  /src/server.cpp:44
        0x0000555555551180  server  main()+36  /src/server.cpp:80
    ");
}

#[test]
fn growth_has_signs_and_what_changed_most_is_last() {
    assert_snapshot!(shown(Topic::View(View::Growth { from: Some(1), to: None })), @r#"
    == Growth from snapshot 1 (signal, 5.00 s) to the end: +0 blocks, -3.7 KiB in 2 call stacks (in ascending order)

    CallStack[2]: +2 blocks, +256 bytes (6.0%)
        allocated 10 blocks, 1.3 KiB; freed 2 blocks, 256 bytes; never freed 8 blocks, 1.0 KiB
        freed blocks lived 1.0 µs to 2.0 s, 1.0 s on average; the oldest live one is 9.0 s old
        live blocks by age: 1 below 1 s, 2 from 1.0 s, 2 from 2.0 s, 3 from 8.0 s
        0x00005555555ea930  libc.so.6  malloc()+0
        [inlined]           server  Pool::take(int)  /src/server.cpp:12
        0x0000555555551250  server  serve(std::vector<int> const&)+14  /src/server.cpp:44
        0x0000555555551180  server  main()+36  /src/server.cpp:80

    CallStack[1]: -2 blocks, -3.9 KiB (94.0%)
        allocated 3 blocks, 5.9 KiB; freed 3 blocks, 5.9 KiB; never freed 0 blocks, 0 bytes
        freed blocks lived 5.0 ms to 7.0 ms, 6.0 ms on average
        0x00005555555ea930  libc.so.6  malloc()+0
        0x0000555555551300  server  evil;�<b>"&�[31m λ()+1  /src/server.cpp:7
        0x0000555555554242  plug in.so+0x4242
        0x0000555555551180  server  main()+36  /src/server.cpp:80
    "#);
}

#[test]
fn what_is_not_shown_is_counted() {
    let two = shown_of(&sample::profile(), Topic::View(View::Peak), Extent { top: 1, threshold: 0.0 });
    let dear = shown_of(&sample::profile(), Topic::View(View::Peak), Extent { top: 50, threshold: 20.0 });
    assert_eq!(two, dear);
    assert_snapshot!(two, @r#"
    == Live at the peak (5.00 s): 9 blocks, 4.7 KiB in 3 call stacks (in ascending order)
    -- Not shown: 2 that cost less, 7 blocks, 768 bytes together (--top, --threshold).

    CallStack[1]: 2 blocks, 3.9 KiB (83.9%)
        allocated 3 blocks, 5.9 KiB; freed 3 blocks, 5.9 KiB; never freed 0 blocks, 0 bytes
        freed blocks lived 5.0 ms to 7.0 ms, 6.0 ms on average
        0x00005555555ea930  libc.so.6  malloc()+0
        0x0000555555551300  server  evil;�<b>"&�[31m λ()+1  /src/server.cpp:7
        0x0000555555554242  plug in.so+0x4242
        0x0000555555551180  server  main()+36  /src/server.cpp:80
    "#);
    let mut profile = sample::profile();
    profile.sites.clear();
    assert_eq!(shown_of(&profile, Topic::View(View::Leaks), USUAL), "== Never freed: nothing.\n");
}

#[test]
fn sites_are_ordered_by_what_is_asked() {
    assert_snapshot!(shown(Topic::Sites(SiteOrder::LiveBytes)), @r"
    == Call stacks with the most live bytes: 1 of 3
           live     blocks   allocated      blocks      a second  where
        1.0 KiB          8     1.3 KiB          10     128 bytes  Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80)
    ");
    assert_snapshot!(shown(Topic::Sites(SiteOrder::Rate)), @r#"
    == Call stacks with the most bytes allocated a second: 2 of 3
           live     blocks   allocated      blocks      a second  where
        0 bytes          0     5.9 KiB           3     600 bytes  evil;�<b>"&�[31m λ (server.cpp:7) < /srv/plug in.so+0x4242 < main (server.cpp:80)
        1.0 KiB          8     1.3 KiB          10     128 bytes  Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80)
    "#);
}

#[test]
fn single_blocks_have_age_and_stack() {
    assert_snapshot!(shown(Topic::Blocks), @r"
    == Largest single blocks: 1, out of 9 blocks, 1.0 KiB live at the end

    128 bytes at 0x555560001000, 9.0 s old
        0x00005555555ea930  libc.so.6  malloc()+0
        [inlined]           server  Pool::take(int)  /src/server.cpp:12
        0x0000555555551250  server  serve(std::vector<int> const&)+14  /src/server.cpp:44
        0x0000555555551180  server  main()+36  /src/server.cpp:80
    ");
    let mut profile = sample::profile();
    profile.blocks.clear();
    assert_snapshot!(shown_of(&profile, Topic::Blocks, USUAL), @r"
    == Single blocks: none is known of the 9 blocks, 1.0 KiB live at the end.
    -- Single blocks are not part of this recording.
    ");
}

#[test]
fn sizes_and_lifetimes_are_bars() {
    assert_snapshot!(shown(Topic::Sizes), @r#"
    == Sizes of all blocks that were allocated
        0 bytes                      1   7.1% ████
        …
        from 128 bytes              10  71.4% ████████████████████████████████████████
        …
        from 1.0 KiB                 3  21.4% ████████████

    evil;�<b>"&�[31m λ (server.cpp:7) < /srv/plug in.so+0x4242 < main (server.cpp:80): 3 blocks, 5.9 KiB
        from 1.0 KiB                 3 100.0% ████████████████████████████████████████

    Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80): 10 blocks, 1.3 KiB
        from 128 bytes              10 100.0% ████████████████████████████████████████

    0x7fff12345678: 1 block, 0 bytes
        0 bytes                      1 100.0% ████████████████████████████████████████
    "#);
    let mut profile = sample::profile();
    profile.sites[1].lifetimes = None;
    assert_snapshot!(shown_of(&profile, Topic::Lifetimes, USUAL), @r"
    == Life times of all blocks that were freed
    -- Not known of 3 blocks: the backend does not tell.
        from 512 ns                  1  50.0% ████████████████████████████████████████
        …
        from 1.1 s                   1  50.0% ████████████████████████████████████████

    Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80): 2 blocks, 256 bytes
        from 512 ns                  1  50.0% ████████████████████████████████████████
        …
        from 1.1 s                   1  50.0% ████████████████████████████████████████
    ");
}

#[test]
fn the_course_of_time_is_drawn_for_all_and_for_what_grew_most() {
    assert_snapshot!(shown(Topic::Timeline), @r#"
    == Live memory over time, from 1.0 s to 10.0 s, at 3 moments
        ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁█████████████████████████████████▁ 128 bytes to 1.0 KiB, at most 4.7 KiB

    CallStack[1]: Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80)
        ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆█ 128 bytes to 1.0 KiB, at most 1.0 KiB

    CallStack[2]: evil;�<b>"&�[31m λ (server.cpp:7) < /srv/plug in.so+0x4242 < main (server.cpp:80)
                                  █████████████████████████████████  0 bytes to 0 bytes, at most 3.9 KiB
    "#);
    let mut profile = sample::profile();
    profile.timeline.clear();
    assert_snapshot!(shown_of(&profile, Topic::Timeline, USUAL), @r"
    == Live memory over time: nothing.
    -- No course of time was recorded.
    ");
}

#[test]
fn snapshots_are_listed_with_what_changed_between_them() {
    let mut profile = sample::profile();
    let mut second = profile.snapshots[0].clone();
    second.cause = "memtrail_snapshot".into();
    second.moment = profile.timeline[2];
    profile.snapshots.push(second);
    assert_snapshot!(shown_of(&profile, Topic::Snapshots, USUAL), @r"
    == 2 snapshots
          1  after 5.0 s, by signal: 9 blocks, 4.7 KiB live (+9 blocks, +4.7 KiB)
          2  after 10.0 s, by memtrail_snapshot: 9 blocks, 1.0 KiB live (+0 blocks, -3.7 KiB)
    ");
}

#[test]
fn nothing_is_written_of_a_view_that_cannot_be_had() {
    let mut output = Vec::new();
    let topics = [Topic::Summary, Topic::View(View::Snapshot(2))];
    let error = write_topics(&sample::profile(), &topics, USUAL, &mut output).expect_err("one was taken");
    assert_eq!(error.to_string(), "cannot show snapshot 2: the number taken is 1");
    assert_eq!(output, b"");
}

#[test]
fn bars_and_lines_show_whatever_is_there() {
    assert_eq!(sparkline(&[0, 1, u64::MAX / 2, u64::MAX]), " ▁▃█");
    assert_eq!(sparkline(&[]), "");
    assert_eq!(percent(1, 0), 0.0);
}

#[test]
fn trends_say_what_grows_on_and_how_fast() {
    let mut profile = sample::profile();
    profile.timeline =
        (1..=40).map(|second| Moment { at: Timestamp(second * 1_000_000_000), ..Moment::default() }).collect();
    profile.references[0].counts = (1..=40).map(|second| 5 * second).collect();
    let course = |live: &dyn Fn(u64) -> u64| {
        let tally = |count| Tally { count, bytes: 48 * count };
        (0..40).map(|moment| (moment, tally(live(moment as u64 + 1)))).collect()
    };
    profile.sites[0].growth = course(&|second| second.min(7));
    profile.sites[1].growth = course(&|second| 5 * second);
    profile.sites[2].growth = course(&|second| second / 12);
    assert_snapshot!(shown_of(&profile, Topic::Trends, USUAL), @r#"
    == Trends of what is live, in 10.0 s, 200 calls of handle_request
    -- Call stacks that grow on with the calls: 1; that level off: 1; unclear: 1.
                                  a call              a second        live  where
      1 leak              48.0 bytes ± 0       240.0 bytes ± 0     0 bytes  evil;�<b>"&�[31m λ (server.cpp:7) < /srv/plug in.so+0x4242 < main (server.cpp:80)
      2 unclear      0.768 bytes ± 0.203     3.84 bytes ± 1.02     0 bytes  0x7fff12345678
      3 levels off           0 bytes ± 0           0 bytes ± 0     1.0 KiB  Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80)

    CallStack[1]: leak, 0 blocks, 0 bytes live
        48.0 bytes ± 0 a call of handle_request, 1.00 ± 0 blocks
        240.0 bytes ± 0 a second, 5.00 ± 0 blocks
        0x00005555555ea930  libc.so.6  malloc()+0
        0x0000555555551300  server  evil;�<b>"&�[31m λ()+1  /src/server.cpp:7
        0x0000555555554242  plug in.so+0x4242
        0x0000555555551180  server  main()+36  /src/server.cpp:80

    CallStack[2]: unclear, 1 block, 0 bytes live
        -- It grew too seldom to tell whether it goes on: watch it longer.
        0.768 bytes ± 0.203 a call of handle_request, 0.016 ± 0.004 blocks
        3.84 bytes ± 1.02 a second, 0.080 ± 0.021 blocks
        0x00005555555ea930  libc.so.6  malloc()+0
        0x00007fff12345678  ??
        -- backtrace ends here: this code is in no file
    "#);
    assert!(
        shown_of(&profile, Topic::Trends, Extent { top: 1, threshold: 0.0 }).contains("Not shown: 2 that grow less")
    );
    profile.references.clear();
    assert!(shown_of(&profile, Topic::Trends, USUAL).contains("Call stacks that grow on with time: 1;"));
}

#[test]
fn ages_are_told_in_seconds() {
    assert_snapshot!(shown(Topic::Ages), @r"
    == Ages of the blocks that are live at the end
        below 1 s                    1  11.1% ██████████
        from 1.0 s                   2  22.2% ████████████████████
        from 2.0 s                   2  22.2% ████████████████████
        …
        from 8.0 s                   4  44.4% ████████████████████████████████████████

    Pool::take(int) (server.cpp:12) < serve(std::vector<int> const&) (server.cpp:44) < main (server.cpp:80): 8 blocks, 1.0 KiB
        below 1 s                    1  12.5% █████████████▎
        from 1.0 s                   2  25.0% ██████████████████████████▋
        from 2.0 s                   2  25.0% ██████████████████████████▋
        …
        from 8.0 s                   3  37.5% ████████████████████████████████████████

    0x7fff12345678: 1 block, 0 bytes
        from 8.0 s                   1 100.0% ████████████████████████████████████████
    ");
    let mut profile = sample::profile();
    profile.sites.iter_mut().for_each(|site| site.ages = None);
    assert!(shown_of(&profile, Topic::Ages, USUAL).contains("-- Not known"));
}

#[test]
fn objects_are_told_after_memory() {
    let profile = sample::with_objects();
    let text = |profile: &Profile, detail: &Detail| {
        let mut output = StripStream::new(Vec::new());
        write_detail(profile, &View::Leaks, detail, &mut output).expect("a view that can be had");
        String::from_utf8(output.into_inner()).expect("UTF-8")
    };
    let whole = text(&profile, &Detail::default());
    let (_, objects) = whole.split_once("== Objects ").expect("a section");
    assert_snapshot!(objects);
    let alone = text(profile.of_type("conn").expect("the type"), &Detail::default());
    assert_snapshot!(alone);
}
