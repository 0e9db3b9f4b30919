//! A profile as a server leaves it, with hostile names, of any size.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memleax::event::{Ending, Loss, Tally, Timestamp};
use memleax::histogram::Histogram;
use memleax::profile::{LiveBlock, Module, Moment, Profile, Run, Site, Snapshot};
use memleax::symbol::{Function, NamedFrame, NamedStack};

/// A function whose name would be a script, were it not escaped.
pub(crate) const HOSTILE: &str = "</script></title><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;\u{1b}[31m\u{2028}";

const SERVER: &str = "/srv/bin/server";
const MOMENTS: usize = 120;

struct Frames(Vec<Arc<NamedFrame>>);

impl Frames {
    fn add(&mut self, module: &str, name: &str, line: u32) -> Arc<NamedFrame> {
        let offset = 0x1000 + 0x40 * self.0.len() as u64;
        let function = Function {
            name: name.into(),
            raw: name.into(),
            offset: Some(12),
            file: (module == SERVER)
                .then(|| format!("/src/{}.cpp", &name[..name.len().min(4)].replace(['<', '/'], "_"))),
            line: (module == SERVER).then_some(line),
            inlined: false,
        };
        let functions = if name.is_empty() { Vec::new() } else { vec![function] };
        let bias = if module.is_empty() { 0 } else { 0x5555_0000_0000 };
        self.0.push(Arc::new(NamedFrame { address: bias + offset, module: module.into(), offset, functions }));
        Arc::clone(&self.0[self.0.len() - 1])
    }
}

fn tally(count: u64, bytes: u64) -> Tally {
    Tally { count, bytes }
}

/// A profile of `sites` call stacks, each about `depth` functions deep. Site 0 leaks by far the most, in `leak_session`;
/// site 1 goes through [`HOSTILE`]; site 2 has a block of no bytes.
pub(crate) fn profile(sites: usize, depth: usize) -> Profile {
    let mut frames = Frames(Vec::new());
    let malloc = frames.add("/usr/lib/x86_64-linux-gnu/libc.so.6", "malloc", 0);
    let new = frames.add("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "operator new(unsigned long)", 0);
    let main = frames.add(SERVER, "main", 80);
    let serve = frames.add(SERVER, "serve(std::vector<int, std::allocator<int> > const&)", 44);
    let leak = frames.add(SERVER, "leak_session(Connection&)", 25);
    let hostile = frames.add(SERVER, HOSTILE, 7);
    let stripped = frames.add("/usr/lib/plug in.so", "", 0);
    let inner: Vec<_> = (0..400)
        .map(|n| {
            let verb = ["parse", "render", "cache", "encode", "lookup"][n % 5];
            let module = ["/usr/lib/libtls.so.3", SERVER, SERVER, "/usr/lib/libjson.so.1"][n % 4];
            frames.add(module, &format!("{verb}_{n}(Request const&, int)"), u32::try_from(n).unwrap_or(0) + 100)
        })
        .collect();
    let mut random = 12_345_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let sites: Vec<Site> = (0..sites)
        .map(|n| {
            let mut stack = vec![malloc.clone()];
            match n {
                0 => stack.extend([new.clone(), leak.clone()]),
                1 => stack.extend([hostile.clone(), stripped.clone()]),
                _ => {
                    for _ in 0..depth {
                        stack.push(inner[usize::try_from(next(400)).unwrap_or(0)].clone());
                    }
                }
            }
            stack.extend([serve.clone(), main.clone()]);
            let ending = if n % 7 == 3 { Ending::DepthLimit } else { Ending::Complete };
            let size = match n {
                0 => 4 * sites as u64,
                2 => 0,
                _ => 16 << next(8),
            };
            let count = if n == 0 { 5_000 } else { 2 + next(300) };
            let live = if n < 3 { count } else { next(count / 2 + 1) };
            let rising = |moment: usize| live * (moment as u64 + 1) / MOMENTS as u64;
            site(NamedStack { frames: stack, ending, by_frame_pointer: n % 11 == 4 }, size, count, live, &rising)
        })
        .collect();
    let total = |tally_of: &dyn Fn(&Site) -> Tally| sites.iter().map(tally_of).fold(Tally::default(), Tally::plus);
    let (allocated, at_peak) = (total(&|site| site.allocated), total(&|site| site.at_peak));
    let peak = Moment { at: Timestamp(45_000_000_000), allocated, live: at_peak };
    let timeline = (0..MOMENTS)
        .map(|moment| {
            let live = sites.iter().filter_map(|site| site.growth.get(moment)).map(|&(_, live)| live);
            let live = live.fold(Tally::default(), Tally::plus);
            let live = if moment == MOMENTS * 3 / 4 { at_peak } else { live };
            Moment { at: Timestamp((moment as u64 + 1) * 500_000_000), allocated, live }
        })
        .collect();
    let snapshot = |cause: &str, at: u64, part: u64| Snapshot {
        cause: cause.into(),
        moment: Moment { at: Timestamp(at), allocated, live: tally(at_peak.count / part, at_peak.bytes / part) },
        live: sites
            .iter()
            .enumerate()
            .filter(|(_, site)| site.at_peak.count / part > 0)
            .map(|(n, site)| (n, tally(site.at_peak.count / part, site.at_peak.bytes / part)))
            .collect(),
    };
    let snapshots = vec![snapshot("signal", 15_000_000_000, 3), snapshot("memtrail_snapshot", 30_000_000_000, 2)];
    let module = |path: &str, at: u64| Module {
        path: path.into(),
        build_id: vec![0xab; 20],
        range: at..at + 0x10_0000,
        bias: at,
        file_offset: 0,
    };
    Profile {
        run: Run {
            pid: 4321,
            command: vec![SERVER.into(), "--name".into(), "<b>&\"".into()],
            executable: SERVER.into(),
            backend: "ptrace, as bpf needs root".into(),
            version: "0.1.0".into(),
            started: 1_700_000_000_000_000_000,
            monitored: Duration::from_secs(60),
            expire: Duration::from_secs(5),
            launched: true,
            by_event: true,
            ending: Some("The program ended with status 0.".into()),
        },
        modules: vec![
            module(SERVER, 0x5555_0000_0000),
            module("/usr/lib/x86_64-linux-gnu/libc.so.6", 0x7fff_0000_0000),
        ],
        timeline,
        references: Vec::new(),
        peak: Some(peak),
        snapshots,
        blocks: (0..20)
            .map(|n| LiveBlock {
                address: 0x5555_6000_0000 + n * 64,
                size: 4096 - n,
                age: Duration::from_secs(n),
                site: 0,
            })
            .collect(),
        sites,
        unknown_frees: 3,
        resized: Default::default(),
        losses: BTreeMap::from([(Loss::NeverReturned, 2)]),
        remarks: vec!["Names of libjson.so.1 are missing: <i>no debug file</i>.".into()],
        of: None,
        objects: Vec::new(),
    }
}

fn site(stack: NamedStack, size: u64, count: u64, live: u64, rising: &dyn Fn(usize) -> u64) -> Site {
    let mut sizes = Histogram::default();
    let mut lifetimes = Histogram::default();
    (0..count).for_each(|_| sizes.add(size));
    (0..count - live).for_each(|n| lifetimes.add(1_000_000 << (n % 12)));
    let of = |count: u64| tally(count, count * size);
    let mut growth: Vec<(usize, Tally)> = (0..MOMENTS).map(|moment| (moment, of(rising(moment)))).collect();
    if live == 0 {
        growth.clear();
    }
    Site {
        stack,
        allocated: of(count),
        freed: of(count - live),
        live: of(live),
        expired: of(live / 2),
        freed_expired: of(0),
        at_peak: of(live + (count - live) / 3),
        temporary: Some(of((count - live) / 4)),
        sizes: Some(sizes),
        lifetimes: Some(lifetimes),
        lives: (count > live).then(|| (Duration::from_millis(1), Duration::from_millis(350), Duration::from_secs(2))),
        ages: None,
        oldest: (live > 0).then(|| Duration::from_secs(50)),
        growth,
    }
}
