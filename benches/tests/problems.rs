//! Problems: what they compute, and their names.

use s2_attention_pattern::predicate;
use s2_bench::problems::{Problem, Shape};
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
fn the_last_token_attends_its_row() {
    for problem in [
        SMALL.sparse(8, 2, 3),
        SMALL.sparse_by_kv_head(8, 2, 3),
        SMALL.dense(),
    ] {
        let block = problem.pattern.block_size;
        let last = SMALL.seq - 1;
        let attends = |head, key: usize| {
            predicate::attends(&problem.pattern, head, last / block, key / block)
        };
        let keys = 0..SMALL.seq;
        let pairs: usize = (0..4)
            .map(|head| keys.clone().filter(|&key| attends(head, key)).count())
            .sum();
        // Two query heads share a key/value head.
        let read: usize = (0..2)
            .map(|of| {
                let either = |key: &usize| (2 * of..2 * of + 2).any(|head| attends(head, *key));
                keys.clone().filter(either).count()
            })
            .sum();
        let token = problem.last_token().unwrap();
        assert_eq!(token.pairs, pairs as u64, "{}", problem.name);
        // 2 sequences, keys and values of 16 elements of 4 bytes.
        assert_eq!(
            token.bytes,
            (2 * read * 2 * 16 * 4) as u64,
            "{}",
            problem.name
        );
        assert_eq!(problem.point(Pass::Decode).unwrap().pairs, token.pairs);
        let flops = problem.useful_flops(Pass::Decode).unwrap();
        assert_eq!(flops, Some((2 * pairs * 4 * 16) as f64));
    }
}

#[test]
fn names_say_the_problem() {
    for (problem, name) in [
        (SMALL.sparse(8, 2, 3), "b2_h4kv2_s70_d16_f32_blk8_l2_v3"),
        (SMALL.dense(), "b2_h4kv2_s70_d16_f32_dense"),
        (
            SMALL.sparse_by_kv_head(8, 2, 3),
            "b2_h4kv2_s70_d16_f32_blk8_l2_v3_perkv",
        ),
    ] {
        assert_eq!(problem.name, name);
        assert_eq!(name.parse::<Problem>().unwrap(), problem);
    }
    for name in [
        "b2_h4_s70_d16_f8_dense",
        "b2_h4_s70_d16_f32_blk8_l2",
        "dense",
    ] {
        let error = name.parse::<Problem>().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_point_names_the_pairs_of_one_sequence() {
    let problem = SMALL.sparse(8, 2, 3);
    let point = problem.point(Pass::Backward).unwrap();
    assert_eq!(point.pairs as f64, pairs(&problem) / 2.0);
    let json = serde_json::to_value(&point).unwrap();
    assert_eq!(
        (&json["name"], &json["pass"], &json["kv_heads"]),
        (&problem.name.as_str().into(), &"backward".into(), &2.into())
    );
}
