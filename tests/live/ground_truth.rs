//! Every call stack right to main, every count and byte exact: in all the ways that programs are built.

use memleax_targets::Target;

use crate::harness::{check_ground_truth, has_program, lines_checked, may_trace};

fn check(target: Target) {
    if !may_trace() {
        return;
    }
    let program = target.build();
    let (report, truth) = check_ground_truth(&program, program.start(), "go 3");
    assert!(truth.sites.len() >= 10, "only {} call sites", truth.sites.len());
    // Each site names the line of its call, except those whose caller has no line of its own.
    if program.path == program.unstripped {
        let checked = lines_checked(&report, &truth);
        assert!(checked * 10 >= truth.sites.len() * 8, "{checked} of {} lines", truth.sites.len());
    }
}

fn c() -> Target {
    Target::c("leak_sites")
}

fn cpp() -> Target {
    Target::cpp("cpp_sites")
}

#[test]
fn c_pie() {
    check(c().flags(&["-pie", "-fPIE"]));
}

#[test]
fn c_position_dependent() {
    check(c().flags(&["-no-pie", "-fno-pie"]));
}

#[test]
fn c_stripped() {
    check(c().stripped());
}

#[test]
fn c_position_dependent_stripped() {
    check(c().flags(&["-no-pie", "-fno-pie"]).stripped());
}

/// The layout of ld since 2018: code and data in segments of their own.
#[test]
fn c_separate_code() {
    check(c().flags(&["-Wl,-z,separate-code"]));
}

#[test]
fn c_one_segment_for_code_and_data() {
    check(c().flags(&["-Wl,-z,noseparate-code"]));
}

#[test]
fn c_lazy_binding() {
    check(c().flags(&["-Wl,-z,lazy", "-fcf-protection=none"]));
}

/// No procedure linkage table: calls go straight through the global offset table.
#[test]
fn c_without_plt() {
    check(c().flags(&["-fno-plt", "-Wl,-z,now"]));
}

#[test]
fn c_unoptimised_with_frame_pointers() {
    check(c().flags(&["-O0", "-fno-omit-frame-pointer"]));
}

#[test]
fn c_most_optimised() {
    check(c().flags(&["-O3"]));
}

#[test]
fn c_small() {
    check(c().flags(&["-Os"]));
}

#[test]
fn c_by_clang() {
    if has_program("clang") {
        check(c().compiler("clang"));
    }
}

#[test]
fn c_dwarf_4() {
    check(c().flags(&["-gdwarf-4"]));
}

#[test]
fn c_compressed_debug_information() {
    check(c().flags(&["-gz"]));
}

#[test]
fn c_static_glibc() {
    check(c().flags(&["-static", "-no-pie"]));
}

#[test]
fn c_static_pie_glibc() {
    check(c().flags(&["-static-pie"]));
}

#[test]
fn c_static_musl() {
    check(c().compiler("musl-gcc").flags(&["-static"]));
}

#[test]
fn c_dynamic_musl() {
    check(c().compiler("musl-gcc"));
}

#[test]
fn cpp_pie() {
    check(cpp().flags(&["-pie", "-fPIE"]));
}

#[test]
fn cpp_position_dependent() {
    check(cpp().flags(&["-no-pie", "-fno-pie"]));
}

#[test]
fn cpp_stripped() {
    check(cpp().stripped());
}

#[test]
fn cpp_static_libstdcxx() {
    check(cpp().flags(&["-static-libstdc++", "-static-libgcc"]));
}

#[test]
fn cpp_static() {
    check(cpp().flags(&["-static"]));
}

#[test]
fn cpp_unoptimised() {
    check(cpp().flags(&["-O0"]));
}

#[test]
fn cpp_by_clang() {
    if has_program("clang++") {
        check(cpp().compiler("clang++"));
    }
}

#[test]
fn rust() {
    if !may_trace() {
        return;
    }
    let program = Target::rust("rust_sites").build();
    check_ground_truth(&program, program.start(), "go 3");
}

#[test]
fn rust_with_v0_names() {
    if !may_trace() {
        return;
    }
    let program = Target::rust("rust_sites").flags(&["-Csymbol-mangling-version=v0"]).build();
    check_ground_truth(&program, program.start(), "go 3");
}
