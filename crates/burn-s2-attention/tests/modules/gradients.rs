//! Which parameters have a gradient.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::common::host::values;

/// Names of all parameters, and those whose gradient is missing, not finite or all zero.
pub fn parameters_without_gradient<M: Module>(
    module: &M,
    gradients: &Gradients,
) -> (usize, Vec<String>) {
    struct Visitor<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        count: usize,
        without: Vec<String>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.count += 1;
            let gradient = param.val().grad(self.gradients).map(values);
            let is_one = |gradient: Vec<f64>| {
                gradient.iter().all(|g| g.is_finite()) && gradient.iter().any(|g| *g != 0.0)
            };
            if !gradient.is_some_and(is_one) {
                self.without.push(self.path.join("."));
            }
        }
    }
    let mut visitor = Visitor {
        path: vec![],
        gradients,
        count: 0,
        without: vec![],
    };
    module.visit(&mut visitor);
    (visitor.count, visitor.without)
}
