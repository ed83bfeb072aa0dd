//! The catalogue.

use std::collections::HashSet;

use s2_bench::catalogue::{SETS, select};
use s2_bench::problems::Problem;

fn names(selection: &str) -> Vec<String> {
    let selected = select(selection).unwrap_or_else(|error| panic!("{error}"));
    selected.into_iter().map(|problem| problem.name).collect()
}

#[test]
fn names_are_all_that_there_is_to_know() {
    for set in SETS {
        let problems = (set.problems)();
        let mut names = HashSet::new();
        for problem in &problems {
            assert!(
                names.insert(&problem.name),
                "{}: {} twice",
                set.name,
                problem.name
            );
            let parsed: Problem = problem.name.parse().unwrap();
            assert_eq!(&parsed, problem);
            problem
                .report()
                .unwrap_or_else(|error| panic!("{}: {error}", problem.name));
        }
    }
}

#[test]
fn a_dense_twin_comes_before_every_sparse_problem() {
    for set in SETS {
        let problems = (set.problems)();
        for (index, problem) in problems.iter().enumerate() {
            let twin = problem.shape.dense();
            assert!(
                problems[..=index].contains(&twin),
                "{}: no {} before it",
                problem.name,
                twin.name
            );
        }
    }
}

#[test]
fn selections_take_sets_and_parts_of_names() {
    assert_eq!(names("quick").len(), 4);
    let both = names("s2048_d128_f32, quick");
    assert!(both[0].contains("s2048_d128") && both.last().unwrap().contains("s1024"));
    // One sparse problem brings its dense twin.
    let part = names("s2048_d64_f32_blk64_l4_v8");
    assert!(
        part.contains(&"b1_h8_s2048_d64_f32_dense".to_owned()),
        "{part:?}"
    );
    assert_eq!(names("quick,quick").len(), 4);
    let error = select("quick,s99").unwrap_err().to_string();
    assert!(
        error.contains("s99") && error.contains("cpu, quick"),
        "{error}"
    );
    assert!(select("").is_err());
}

#[test]
fn whole_names_come_alone_and_need_not_be_in_the_catalogue() {
    for name in [
        "b3_h2_s128_d16_f16_blk16_l1_v4",
        "b1_h8_s2048_d64_f32_blk64_l4_v8",
    ] {
        assert_eq!(names(name), [name]);
    }
}

#[test]
fn the_shape_of_the_cpu_target_is_in_the_cpu_set() {
    assert!(names("cpu").contains(&"b1_h8_s2048_d64_f32_blk64_l4_v8".to_owned()));
}

/// What others have published or were timed on, and what targets are set for.
#[test]
fn the_gpu_set_has_the_shapes_that_peers_were_timed_on() {
    let gpu = names("gpu");
    for name in [
        "h16_s8192_d128_bf16_blk64_l16_v16",
        "h16_s32768_d128_bf16_blk64_l16_v16",
        "h16_s131072_d128_bf16_blk64_l16_v16",
        "h16_s131072_d128_bf16_blk64_l8_v16",
        "h32_s131072_d128_bf16_blk64_l8_v32",
        "h64_s131072_d128_bf16_blk64_l8_v64",
        "h32_s32768_d128_bf16_blk64_l8_v32",
        "h16_s32768_d64_bf16_blk64_l8_v16",
        "h16_s32768_d128_bf16_blk16_l32_v16",
        "h16_s32768_d128_bf16_blk32_l16_v16",
        "h16_s32768_d128_bf16_blk128_l8_v16",
        "h16_s512_d128_bf16_blk64_l16_v16",
        "h16_s4096_d128_bf16_blk64_l16_v16",
        "h16_s32768_d128_bf16_dense",
        "h32kv8_s8192_d128_bf16_blk64_l16_v8",
        "h16_s8192_d128_f32_blk64_l16_v16",
    ] {
        assert!(gpu.contains(&format!("b1_{name}")), "{name}");
    }
    assert!(gpu.contains(&"b4_h16_s8192_d128_bf16_blk64_l16_v16".to_owned()));
    // Every length, every number of heads with every stride, every width, block and batch, and dense attention.
    for log2 in 9..18 {
        let seq = 1 << log2;
        assert!(
            gpu.contains(&format!("b1_h16_s{seq}_d128_bf16_blk64_l16_v16")),
            "{seq}"
        );
        assert!(
            gpu.contains(&format!("b1_h16_s{seq}_d128_bf16_dense")),
            "{seq}"
        );
    }
    for heads in [16, 32, 64] {
        for stride in [heads, 8, 16] {
            let name = format!("b1_h{heads}_s32768_d128_bf16_blk64_l8_v{stride}");
            assert!(gpu.contains(&name), "{name}");
        }
        let paper = format!("b1_h{heads}_s131072_d128_bf16_blk64_l8_v{heads}");
        assert!(gpu.contains(&paper) && names("paper").contains(&paper));
        assert!(gpu.contains(&format!("b1_h{heads}_s131072_d128_bf16_dense")));
    }
    for (block, local) in [(16, 32), (32, 16), (64, 8)] {
        assert!(gpu.contains(&format!("b1_h16_s32768_d128_bf16_blk{block}_l{local}_v16")));
    }
    for name in [
        "b1_h16_s32768_d64_bf16_dense",
        "b1_h32kv8_s32768_d128_bf16_blk64_l16_v8",
        "b1_h32kv8_s8192_d128_bf16_dense",
        "b4_h16_s8192_d128_bf16_dense",
        "b1_h16_s8192_d128_f32_dense",
    ] {
        assert!(gpu.contains(&name.to_owned()), "{name}");
    }
    for stride in [2, 4, 8, 16, 32] {
        assert!(gpu.contains(&format!("b1_h16_s32768_d128_bf16_blk64_l16_v{stride}")));
    }
}
