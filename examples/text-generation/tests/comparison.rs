//! Runs beside each other.

use text_generation::report::{Comparison, History};

fn run(losses: &[f64]) -> History {
    History {
        train: losses
            .iter()
            .enumerate()
            .map(|(step, loss)| (step + 1, *loss))
            .collect(),
        ..History::default()
    }
}

#[test]
fn differences_are_from_the_first_run_over_the_steps_both_made() {
    let runs = [
        ("a", run(&[3.0, 2.0, 1.0])),
        ("b", run(&[3.0, 2.5])),
        ("c", run(&[3.0, 2.0, 0.0])),
    ];
    let runs = runs.map(|(name, history)| (name.to_owned(), history));
    let comparison = Comparison::new(runs.to_vec()).unwrap();
    assert_eq!(
        comparison.table(),
        "| step | a | b | c |\n|---:|---:|---:|---:|\n\
         | 1 | 3.00000 | 3.00000 | 3.00000 |\n| 2 | 2.00000 | 2.50000 | 2.00000 |\n\
         | largest difference | 0.0e0 | 5.0e-1 | 1.0e0 |\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("losses.svg");
    comparison.draw(&picture).unwrap();
    let picture = std::fs::read_to_string(picture).unwrap();
    for name in ["a", "b", "c"] {
        assert!(picture.contains(&format!("\n{name}\n")), "{picture}");
    }
}

#[test]
fn nothing_to_compare_is_an_error() {
    let one = vec![("a".to_owned(), run(&[1.0]))];
    let error = |runs| Comparison::new(runs).err().unwrap().to_string();
    assert!(error(one.clone()).contains("two runs"));
    let unfinished = [one, vec![("b".to_owned(), run(&[]))]].concat();
    assert!(error(unfinished).contains("run `b` has not finished"));
}
