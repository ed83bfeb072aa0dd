//! The rows of one run, each on disk before the next point is timed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::harness::Timing;
use crate::left_out::{LeftOut, in_one_line};
use crate::machine::Machine;
use crate::problems::{Problem, Shape};
use crate::providers::{Matmul, Measured, Provider};
use crate::record::{Backend, Dtype, Pass, Record, Row};
use crate::summary::COPY;

/// A run on one machine, and its rows so far.
pub struct Session {
    /// The id that its rows share.
    pub run: String,
    /// Where they are added.
    pub path: PathBuf,
    /// What they say about the machine.
    pub machine: Machine,
    /// What they were timed on.
    pub backend: Backend,
    /// As written.
    pub rows: Vec<Row>,
    /// What was left out, and why, for the screen.
    pub notes: Vec<String>,
}

impl Session {
    /// A run that has no rows yet; what it leaves out goes to a file beside `path`, which is there from now on.
    ///
    /// # Errors
    /// A file that cannot be written, and a run that has rows of another device or commit.
    pub fn start(
        run: String,
        path: PathBuf,
        machine: Machine,
        backend: Backend,
    ) -> anyhow::Result<Self> {
        if path.exists() {
            for row in Row::read(&path)?.iter().filter(|row| row.run == run) {
                let (before, now) = (
                    (&row.device, &row.commit),
                    (&machine.device, &machine.commit),
                );
                ensure!(
                    before == now,
                    "run {run} in {} is of {} at commit {}: rows of {} at commit {} need a --run of their own",
                    path.display(),
                    before.0,
                    before.1,
                    now.0,
                    now.1
                );
            }
        }
        let beside = LeftOut::beside(&path);
        if let Some(folder) = beside.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // An empty file says that nothing was left out; none, that it is not known.
        let file = OpenOptions::new().create(true).append(true).open(&beside);
        file.with_context(|| format!("{}", beside.display()))?;
        Ok(Self {
            run,
            path,
            machine,
            backend,
            rows: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Notes that points of a provider have no rows, and why.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn leave_out(
        &mut self,
        provider: Provider,
        points: &[(&str, Pass)],
        reason: &str,
    ) -> anyhow::Result<()> {
        let (provider, reason) = (provider.name(), in_one_line(reason));
        self.notes.push(match points {
            [(problem, pass)] => format!("{provider} {problem} {pass}: {reason}"),
            several => format!("{provider}, {} points: {reason}", several.len()),
        });
        for (problem, pass) in points {
            let left_out = LeftOut {
                run: self.run.clone(),
                provider: provider.to_owned(),
                problem: (*problem).to_owned(),
                pass: *pass,
                reason: reason.clone(),
            };
            left_out.append(&LeftOut::beside(&self.path))?;
        }
        Ok(())
    }

    /// Adds a time of a pass of Burn's matrix product.
    ///
    /// # Errors
    /// Rows that cannot be written.
    pub fn add_matmul(
        &mut self,
        matmul: &Matmul,
        pass: Pass,
        timing: &Timing,
    ) -> anyhow::Result<()> {
        // Two matrices are two sequences that attend each other with one product in place of two.
        let shape = Shape {
            batch: 1,
            heads: 1,
            kv_heads: 1,
            seq: matmul.size,
            head_dim: matmul.size,
            dtype: matmul.dtype,
        };
        let flops = if pass.is_of_host() {
            0.0
        } else {
            matmul.flops()
        };
        let row = self.row(shape, pass, timing, flops);
        self.add(Row {
            provider: Provider::BurnMatmul.name().to_owned(),
            problem: matmul.problem(),
            pattern: "matrix product".to_owned(),
            ..row
        })
    }

    /// Adds a time of attention by this program.
    ///
    /// # Errors
    /// Rows that cannot be written.
    pub fn add_attention(
        &mut self,
        provider: Provider,
        problem: &Problem,
        pass: Pass,
        measured: &Measured,
    ) -> anyhow::Result<()> {
        let row = self.attention(provider, problem, pass, &measured.timing)?;
        self.add(Row {
            engine: measured.engine,
            ..row
        })
    }

    /// Adds a time of attention in PyTorch, by these versions of what timed it.
    ///
    /// # Errors
    /// Rows that cannot be written.
    pub fn add_peer(
        &mut self,
        provider: Provider,
        problem: &Problem,
        pass: Pass,
        timing: &Timing,
        versions: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let row = self.attention(provider, problem, pass, timing)?;
        self.add(Row {
            backend: Backend::Torch,
            versions: versions.clone(),
            ..row
        })
    }

    /// Adds a time of a copy of that many elements of 4 bytes.
    ///
    /// # Errors
    /// Rows that cannot be written.
    pub fn add_copy(&mut self, elements: usize, timing: &Timing) -> anyhow::Result<()> {
        let shape = Shape {
            batch: 1,
            heads: 1,
            kv_heads: 1,
            seq: elements,
            head_dim: 1,
            dtype: Dtype::F32,
        };
        let row = self.row(shape, Pass::Decode, timing, 0.0);
        self.add(Row {
            provider: COPY.to_owned(),
            problem: format!("copy_{elements}_f32"),
            pattern: "copy".to_owned(),
            ..row
        })
    }

    fn attention(
        &self,
        provider: Provider,
        problem: &Problem,
        pass: Pass,
        timing: &Timing,
    ) -> anyhow::Result<Row> {
        let flops = match pass {
            pass if pass.is_of_host() => 0.0,
            pass => problem
                .useful_flops(pass)?
                .context("a pass of attention has useful operations")?,
        };
        let report = problem.report()?;
        let row = self.row(problem.shape, pass, timing, flops);
        let (seq_q, density) = match pass {
            Pass::Decode => {
                let dense = problem.shape.heads * problem.shape.seq;
                (1, problem.last_token()?.pairs as f64 / dense as f64)
            }
            _ => (row.seq_q, report.density),
        };
        Ok(Row {
            provider: provider.name().to_owned(),
            problem: problem.name.clone(),
            seq_q,
            block: (!problem.is_dense()).then_some(problem.pattern.block_size),
            local_blocks: problem.local_stride().map(|(local_blocks, _)| local_blocks),
            vert_stride: problem.local_stride().map(|(_, vert_stride)| vert_stride),
            causal: true,
            pattern: report.pattern,
            density,
            ..row
        })
    }

    /// What all rows share; a dense row of no engine.
    fn row(&self, shape: Shape, pass: Pass, timing: &Timing, flops: f64) -> Row {
        let machine = &self.machine;
        Row {
            run: self.run.clone(),
            provider: String::new(),
            engine: None,
            backend: self.backend,
            problem: String::new(),
            pass,
            dtype: shape.dtype,
            batch: shape.batch,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            seq_q: shape.seq,
            seq_kv: shape.seq,
            head_dim: shape.head_dim,
            block: None,
            local_blocks: None,
            vert_stride: None,
            causal: false,
            pattern: String::new(),
            median_us: timing.median.as_secs_f64() * 1e6,
            min_us: timing.min.as_secs_f64() * 1e6,
            runs: timing.runs,
            peak_bytes: timing.peak_bytes,
            density: 1.0,
            useful_tflops: flops / timing.median.as_secs_f64() / 1e12,
            device: machine.device.clone(),
            driver: machine.driver.clone(),
            date: machine.date.clone(),
            commit: machine.commit.clone(),
            versions: machine.versions.clone(),
        }
    }

    fn add(&mut self, row: Row) -> anyhow::Result<()> {
        row.append(&self.path)?;
        self.rows.push(row);
        Ok(())
    }
}
