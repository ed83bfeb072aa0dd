//! Words that kernels read, on the device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// An i32 tensor whose buffer stays the same and is rewritten in place: what a captured step reads anew when it is replayed.
/// Writing is queued behind what reads the old words; nothing waits. On GPUs the words still move while the device's thread has not seen
/// their buffer: a step is captured after steps that have run.
#[derive(Debug, Default)]
pub(super) struct DeviceWords(Option<Tensor<1, Int>>);

impl DeviceWords {
    /// Holds these words first, and what it held behind them, in a new buffer only where the old one is shorter.
    pub(super) fn write(&mut self, words: Vec<i32>, device: &Device) {
        match &mut self.0 {
            Some(tensor) if tensor.dims()[0] >= words.len() => rewrite(tensor, words),
            _ => self.0 = Some(upload(words, device)),
        }
    }

    /// The words. The next writing is a copy where this is still alive by then.
    pub(super) fn tensor(&self) -> Option<Tensor<1, Int>> {
        self.0.clone()
    }

    /// Bytes on the device.
    pub(super) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |tensor| tensor.dims()[0] * size_of::<i32>())
    }
}

fn rewrite(tensor: &mut Tensor<1, Int>, words: Vec<i32>) {
    let (device, len) = (tensor.device(), words.len());
    tensor.inplace(|tensor| tensor.slice_assign(0..len, upload(words, &device)));
}

fn upload(words: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let len = words.len();
    Tensor::from_data(TensorData::new(words, [len]), (device, DType::I32))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Device;

    use super::DeviceWords;

    /// Where the words are, and what they are.
    fn state(words: &DeviceWords) -> (*const u8, Vec<i32>) {
        let tensor = words.tensor().unwrap();
        let values = tensor.clone().into_data().try_to_vec().unwrap();
        let primitive = tensor.try_into_primitive::<Flex>().unwrap();
        (primitive.bytes().as_ptr(), values)
    }

    #[test]
    fn words_are_rewritten_where_they_are() {
        let device = Device::flex();
        let mut words = DeviceWords::default();
        assert_eq!((words.bytes(), words.tensor().is_none()), (0, true));
        words.write(vec![1, 2, 3, 4], &device);
        let (place, _) = state(&words);
        words.write(vec![5, 6, 7, 8], &device);
        assert_eq!(state(&words), (place, vec![5, 6, 7, 8]));
        words.write(vec![9, 10], &device);
        assert_eq!(state(&words), (place, vec![9, 10, 7, 8]));
        // More are in a larger buffer, which stays.
        words.write(vec![1; 5], &device);
        let (place, values) = state(&words);
        assert_eq!(values, [1; 5]);
        words.write(vec![2; 3], &device);
        assert_eq!(state(&words), (place, vec![2, 2, 2, 1, 1]));
        assert_eq!(words.bytes(), 20);
    }
}
