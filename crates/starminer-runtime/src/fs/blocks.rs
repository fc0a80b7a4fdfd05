//! A few decrypted blocks of inputs, so that a guest reading 4 KiB at a time does not decrypt a chunk sixteen times.

use zeroize::Zeroizing;

use super::{InputError, InputFile};

/// Bytes of one block: the vault's chunk size, so that a block costs one decryption.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;
/// Blocks kept: enough for a merge of several inputs, half a MiB in all.
const MAX_BLOCKS: usize = 8;

struct Block {
    input: usize,
    index: u64,
    bytes: Zeroizing<Vec<u8>>,
}

/// The last used blocks, the most recent at the end.
pub(super) struct BlockCache {
    blocks: Vec<Block>,
}

impl BlockCache {
    pub(super) fn new() -> Self {
        BlockCache { blocks: Vec::new() }
    }

    /// Fills `buffer` from `offset` of the input numbered `input`, which must reach that far.
    pub(super) fn read(
        &mut self,
        input: usize,
        file: &mut dyn InputFile,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<(), InputError> {
        while !buffer.is_empty() {
            let within = (offset % BLOCK_BYTES) as usize;
            let whole = buffer.len() as u64 / BLOCK_BYTES * BLOCK_BYTES;
            let step = if within == 0 && whole > 0 {
                // Whole blocks go straight to the reader's buffer.
                let (now, _) = buffer.split_at_mut(whole as usize);
                file.read_at(offset, now)?;
                whole as usize
            } else {
                let block = self.block(input, file, offset / BLOCK_BYTES)?;
                let part = block.get(within..).ok_or(InputError)?;
                let step = part.len().min(buffer.len());
                if step == 0 {
                    return Err(InputError);
                }
                buffer[..step].copy_from_slice(&part[..step]);
                step
            };
            offset += step as u64;
            buffer = &mut buffer[step..];
        }
        Ok(())
    }

    fn block(&mut self, input: usize, file: &mut dyn InputFile, index: u64) -> Result<&[u8], InputError> {
        let found = self.blocks.iter().position(|block| block.input == input && block.index == index);
        let block = match found {
            Some(at) => self.blocks.remove(at),
            None => {
                let mut block = if self.blocks.len() < MAX_BLOCKS {
                    Block { input, index, bytes: Zeroizing::new(Vec::with_capacity(BLOCK_BYTES as usize)) }
                } else {
                    self.blocks.remove(0)
                };
                let start = index * BLOCK_BYTES;
                let len = file.len().saturating_sub(start).min(BLOCK_BYTES) as usize;
                block.input = input;
                block.index = index;
                block.bytes.resize(len, 0);
                // On an error the block is dropped, not kept half filled.
                file.read_at(start, &mut block.bytes)?;
                block
            }
        };
        self.blocks.push(block);
        Ok(self.blocks.last().map(|block| block.bytes.as_slice()).unwrap_or_default())
    }
}
