//! Writing with a model.

use std::ops::ControlFlow;

use super::{
    GeneratedToken, Generation, GenerationConfig, GenerationError, Generator, HybridTransformer,
};

impl HybridTransformer {
    /// Continues prompts of any lengths, all of them in each step, on a [`KvCache`](crate::cache::KvCache).
    ///
    /// `on_token` is given every token as it comes, and may end its sequence. One read of logits in a step is all that waits for
    /// the device. The same prompts, configuration and device give the same tokens.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use burn::tensor::Device;
    /// use burn_s2_attention::model::{GenerationConfig, HybridTransformerConfig};
    /// use burn_s2_attention::{LayerSchedule, PatternConfig};
    ///
    /// # if cfg!(feature = "flex") {
    /// let layers = LayerSchedule::new(PatternConfig::local_stride(2, 4, 16, 4));
    /// let model = HybridTransformerConfig::new(256, 64, 2, 4, layers).init(&Device::default());
    /// let prompts = ["fn main", "impl"].map(|text| text.bytes().map(u32::from).collect::<Vec<_>>());
    /// let config = GenerationConfig::new(5).with_temperature(0.8).with_seed(1);
    /// let generation = model.generate(&prompts, &config, |token| {
    ///     println!("{}: {}", token.prompt, token.token);
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(generation.sequences[1].tokens.len(), 5);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// With the text of the error that [`try_generate`](Self::try_generate) returns.
    pub fn generate(
        &self,
        prompts: &[impl AsRef<[u32]>],
        config: &GenerationConfig,
        on_token: impl FnMut(GeneratedToken) -> ControlFlow<()>,
    ) -> Generation {
        self.try_generate(prompts, config, on_token)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`generate`](Self::generate), with a typed error in place of a panic.
    ///
    /// # Errors
    ///
    /// As [`Generator::new`] and [`Generator::step`].
    pub fn try_generate(
        &self,
        prompts: &[impl AsRef<[u32]>],
        config: &GenerationConfig,
        mut on_token: impl FnMut(GeneratedToken) -> ControlFlow<()>,
    ) -> Result<Generation, GenerationError> {
        let mut generator = Generator::new(self, prompts, config)?;
        while !generator.is_done() {
            for token in generator.step()? {
                if on_token(token).is_break() {
                    generator.stop(token.prompt);
                }
            }
        }
        Ok(generator.finish())
    }
}
