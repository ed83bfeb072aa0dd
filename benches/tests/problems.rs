//! The catalogue.

use std::collections::HashSet;

use s2_attention_pattern::predicate;
use s2_bench::problems::{Problem, SETS, Shape, select};
use s2_bench::record::{Dtype, Pass};

const SMALL: Shape = Shape {
    batch: 2,
    heads: 4,
    kv_heads: 2,
    seq: 70,
    head_dim: 16,
    dtype: Dtype::F32,
};

/// Attended token pairs by the written rule.
fn pairs(problem: &Problem) -> f64 {
    let Shape {
        batch, heads, seq, ..
    } = problem.shape;
    let block = problem.pattern.block_size;
    let attends =
        |head, query, key| predicate::attends(&problem.pattern, head, query / block, key / block);
    let count = |head| {
        (0..seq)
            .map(|query| (0..=query).filter(|&key| attends(head, query, key)).count())
            .sum::<usize>()
    };
    (batch * (0..heads).map(count).sum::<usize>()) as f64
}

#[test]
fn useful_operations_count_attended_pairs() {
    for problem in [SMALL.sparse(8, 2, 3), SMALL.sparse(16, 1, 4), SMALL.dense()] {
        let forward = 4.0 * pairs(&problem) * 16.0;
        assert_eq!(
            problem.useful_flops(Pass::Forward).unwrap(),
            Some(forward),
            "{}",
            problem.name
        );
        assert_eq!(
            problem.useful_flops(Pass::Backward).unwrap(),
            Some(2.5 * forward)
        );
        assert_eq!(
            problem.useful_flops(Pass::ForwardBackward).unwrap(),
            Some(3.5 * forward)
        );
        assert_eq!(problem.useful_flops(Pass::TrainStep).unwrap(), None);
    }
    assert_eq!(SMALL.dense().report().unwrap().density, 1.0);
}

#[test]
fn names_say_the_problem_and_nothing_else_has_them() {
    assert_eq!(
        SMALL.sparse(8, 2, 3).name,
        "b2_h4kv2_s70_d16_f32_blk8_l2_v3"
    );
    for set in SETS {
        let problems = (set.problems)();
        let names: HashSet<&str> = problems
            .iter()
            .map(|problem| problem.name.as_str())
            .collect();
        assert_eq!(names.len(), problems.len(), "{}", set.name);
        for problem in &problems {
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
    assert_eq!(select("quick").unwrap().len(), 4);
    let both = select("s2048_d128, quick").unwrap();
    assert!(both[0].name.contains("s2048_d128") && both.last().unwrap().name.contains("s1024"));
    // One sparse problem brings its dense twin.
    let names: Vec<String> = select("s2048_d64_f32_blk64_l4_v8")
        .unwrap()
        .into_iter()
        .map(|problem| problem.name)
        .collect();
    assert!(
        names.contains(&"b1_h8_s2048_d64_f32_dense".to_owned()),
        "{names:?}"
    );
    let error = select("quick,s99").unwrap_err().to_string();
    assert!(
        error.contains("s99") && error.contains("cpu, quick"),
        "{error}"
    );
    assert!(select("").is_err());
}

#[test]
fn the_shape_of_the_cpu_target_is_in_the_cpu_set() {
    let cpu = select("cpu").unwrap();
    let target =
        |problem: &&Problem| problem.shape.seq == 2048 && problem.local_stride() == Some((4, 8));
    assert!(cpu.iter().any(|problem| target(&problem)));
}
