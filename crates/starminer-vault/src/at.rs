//! Byte stores that are read and written at offsets: what the formats need of a file, and no more.
//!
//! Methods take `&self`, as `pread` and `pwrite` do, so that several threads can work on one store. Nothing here
//! opens a path or knows a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that can be read at any offset.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes from `offset` on; fewer only by the store's own choice or at its end, 0 only at or
    /// past the end (or for an empty `buf`).
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes there are.
    fn byte_len(&self) -> io::Result<u64>;

    /// The `len` bytes at `offset` without copying, where the store has them in memory. `None` says nothing about them.
    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (offset, len);
        None
    }

    /// Fills `buf` from `offset` on as far as there are bytes; returns how many there were.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            let position = offset.checked_add(filled as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match self.read_at(&mut buf[filled..], position) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Bytes that can be written at any offset; what lies between the old end and a new write reads as zeros.
pub trait WriteAt {
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
}

/// What a scratch keeps its pages in: one file, or anything that behaves like one.
pub trait PageStore: ReadAt + WriteAt {
    /// Cuts or extends (with zeros) the store to `len_bytes`.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;

    /// Returns once everything written before is durable.
    fn sync(&self) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |start| start.min(self.len()));
        let n = buf.len().min(self.len() - start);
        buf[..n].copy_from_slice(&self[start..start + n]);
        Ok(n)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(len)?)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.as_slice().byte_len()
    }

    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.as_slice().borrow_at(offset, len)
    }
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl WriteAt for File {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }
}

impl PageStore for File {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        File::set_len(self, len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A store in memory, for what is small.
impl ReadAt for Mutex<Vec<u8>> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.lock().unwrap_or_else(PoisonError::into_inner).read_at(buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.lock().unwrap_or_else(PoisonError::into_inner).byte_len()
    }
}

impl WriteAt for Mutex<Vec<u8>> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(())
    }
}

impl PageStore for Mutex<Vec<u8>> {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let len = usize::try_from(len_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.lock().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                (**self).read_at(buf, offset)
            }
            fn byte_len(&self) -> io::Result<u64> {
                (**self).byte_len()
            }
            fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
                (**self).borrow_at(offset, len)
            }
        }
        impl<T: WriteAt + ?Sized> WriteAt for $pointer {
            fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
                (**self).write_all_at(buf, offset)
            }
        }
        impl<T: PageStore + ?Sized> PageStore for $pointer {
            fn set_len(&self, len_bytes: u64) -> io::Result<()> {
                (**self).set_len(len_bytes)
            }
            fn sync(&self) -> io::Result<()> {
                (**self).sync()
            }
        }
    )*};
}
forward!(&T, Arc<T>, Box<T>);
