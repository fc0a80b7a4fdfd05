//! `wasi:filesystem` over a task's [`TaskFs`](crate::fs::TaskFs): handles and error codes; the semantics are in `fs`.

use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::bindings::wasi::clocks::wall_clock::Datetime;
use super::bindings::wasi::filesystem::preopens;
use super::bindings::wasi::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use super::streams::{FileInput, FileOutput, WritePosition};
use super::{MAX_TRANSFER_BYTES, Shared, TaskState};
use crate::fs::{Descriptor, FileKind, FsError, OpenHow, Stat};
use crate::{HostFault, Stop};

/// A file operation's error: the guest's to handle (`Ok`), or one that ends the run (`Err`).
pub struct HostFsError(pub(super) std::result::Result<FsError, wasmtime::Error>);

impl From<FsError> for HostFsError {
    fn from(error: FsError) -> Self {
        HostFsError(Ok(error))
    }
}
impl From<Stop> for HostFsError {
    fn from(stop: Stop) -> Self {
        HostFsError(Err(stop.into()))
    }
}
impl From<ResourceTableError> for HostFsError {
    fn from(error: ResourceTableError) -> Self {
        HostFsError(Err(error.into()))
    }
}

type FsResult<T> = std::result::Result<T, HostFsError>;

/// The WASI code of an error, or the host fault that it is.
pub(super) fn error_code(error: FsError) -> std::result::Result<ErrorCode, HostFault> {
    Ok(match error {
        FsError::NoEntry => ErrorCode::NoEntry,
        FsError::Exists => ErrorCode::Exist,
        FsError::NotDirectory => ErrorCode::NotDirectory,
        FsError::IsDirectory => ErrorCode::IsDirectory,
        FsError::NotEmpty => ErrorCode::NotEmpty,
        FsError::NotPermitted => ErrorCode::NotPermitted,
        FsError::ReadOnly => ErrorCode::ReadOnly,
        FsError::BadDescriptor => ErrorCode::BadDescriptor,
        FsError::Invalid => ErrorCode::Invalid,
        FsError::NameTooLong => ErrorCode::NameTooLong,
        FsError::NoSpace => ErrorCode::InsufficientSpace,
        // WASI has no EMFILE; this is the nearest that is not about bytes of the file.
        FsError::TooManyOpen => ErrorCode::InsufficientMemory,
        FsError::FileTooLarge => ErrorCode::FileTooLarge,
        FsError::CrossDevice => ErrorCode::CrossDevice,
        FsError::Unsupported => ErrorCode::Unsupported,
        FsError::Host(fault) => return Err(fault),
    })
}

/// A descriptor with the file system it belongs to; closing is dropping.
pub struct OpenObject {
    shared: Shared,
    /// Taken only by `drop`.
    descriptor: Option<Descriptor>,
}

impl OpenObject {
    fn new(shared: Shared, descriptor: Descriptor) -> Self {
        OpenObject { shared, descriptor: Some(descriptor) }
    }

    fn descriptor(&self) -> &Descriptor {
        self.descriptor.as_ref().expect("only drop takes the descriptor")
    }

    /// Another handle on the same object.
    fn again(&self) -> FsResult<OpenObject> {
        let descriptor = self.shared.fs().reopen(self.descriptor())?;
        Ok(OpenObject::new(self.shared.clone(), descriptor))
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.shared.fs().stat(self.descriptor()).size_bytes
    }

    pub(super) fn read(&self, offset: u64, wanted: usize) -> FsResult<Vec<u8>> {
        let mut fs = self.shared.fs();
        let left = fs.stat(self.descriptor()).size_bytes.saturating_sub(offset);
        let mut bytes = vec![0; wanted.min(MAX_TRANSFER_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.shared.pace(bytes.len())?;
        let count = fs.read(self.descriptor(), offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> FsResult<()> {
        self.shared.pace(data.len())?;
        Ok(self.shared.fs().write(self.descriptor(), offset, data)?)
    }

    pub(super) fn append(&self, data: &[u8]) -> FsResult<()> {
        self.shared.pace(data.len())?;
        Ok(self.shared.fs().append(self.descriptor(), data)?)
    }

    /// A commit takes the time of a disk, and no fuel: the question whether to stop is asked before each.
    fn sync(&self) -> FsResult<()> {
        let commits = self.shared.fs().is_state(self.descriptor());
        self.shared.pace(if commits { MAX_TRANSFER_BYTES } else { 0 })?;
        Ok(self.shared.fs().sync(self.descriptor())?)
    }

    fn is_file(&self) -> bool {
        self.shared.fs().stat(self.descriptor()).kind == FileKind::File
    }
}

impl Drop for OpenObject {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            // The only failure is a scratch store that cannot free a page: the next use of it ends the run.
            let _ = self.shared.fs().close(descriptor);
        }
    }
}

/// A listing in progress: the directory, and the last name that was given out. It holds no copy of the directory.
pub struct Listing {
    directory: OpenObject,
    last: Option<String>,
}

impl TaskState {
    /// The handle behind a resource, counted as a call.
    fn object(&self, resource: &Resource<OpenObject>) -> FsResult<&OpenObject> {
        self.shared.pace(0)?;
        Ok(self.table.get(resource)?)
    }

    fn directory_write(
        &self,
        resource: &Resource<OpenObject>,
        operation: impl FnOnce(&mut crate::fs::TaskFs, &Descriptor) -> std::result::Result<(), FsError>,
    ) -> FsResult<()> {
        let object = self.object(resource)?;
        Ok(operation(&mut object.shared.fs(), object.descriptor())?)
    }
}

impl preopens::Host for TaskState {
    fn get_directories(&mut self) -> Result<Vec<(Resource<OpenObject>, String)>> {
        let mut directories = Vec::new();
        let grants: Vec<_> = self.shared.fs().grants().collect();
        for grant in grants {
            let opened = self.shared.fs().open_grant(grant);
            let descriptor = opened.map_err(|error| wasmtime::format_err!("{error}"))?;
            let object = OpenObject::new(self.shared.clone(), descriptor);
            directories.push((self.table.push(object)?, grant.path().to_owned()));
        }
        Ok(directories)
    }
}

impl types::Host for TaskState {
    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<ErrorCode>().copied())
    }

    fn convert_error_code(&mut self, error: HostFsError) -> Result<ErrorCode> {
        Ok(error_code(error.0?)?)
    }
}

impl types::HostDirectoryEntryStream for TaskState {
    fn read_directory_entry(&mut self, resource: Resource<Listing>) -> FsResult<Option<DirectoryEntry>> {
        self.shared.pace(0)?;
        let listing = self.table.get_mut(&resource)?;
        let next = {
            let fs = listing.directory.shared.fs();
            fs.next_entry(listing.directory.descriptor(), listing.last.as_deref())?
        };
        Ok(next.map(|entry| {
            listing.last = Some(entry.name.clone());
            DirectoryEntry { type_: descriptor_type(entry.kind), name: entry.name }
        }))
    }

    fn drop(&mut self, resource: Resource<Listing>) -> Result<()> {
        self.table.delete(resource)?;
        Ok(())
    }
}

impl types::HostDescriptor for TaskState {
    fn read_via_stream(&mut self, resource: Resource<OpenObject>, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let object = self.object(&resource)?;
        if !object.is_file() {
            return Err(FsError::IsDirectory.into());
        }
        if !object.descriptor().is_readable() {
            return Err(FsError::BadDescriptor.into());
        }
        let stream = FileInput { file: object.again()?, offset };
        Ok(self.table.push(Box::new(stream) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, resource: Resource<OpenObject>, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        self.output_stream(&resource, WritePosition::At(offset))
    }

    fn append_via_stream(&mut self, resource: Resource<OpenObject>) -> FsResult<Resource<DynOutputStream>> {
        self.output_stream(&resource, WritePosition::End)
    }

    fn advise(&mut self, resource: Resource<OpenObject>, _: u64, _: u64, _: Advice) -> FsResult<()> {
        self.object(&resource).map(|_| ())
    }

    fn sync_data(&mut self, resource: Resource<OpenObject>) -> FsResult<()> {
        self.object(&resource)?.sync()
    }

    fn sync(&mut self, resource: Resource<OpenObject>) -> FsResult<()> {
        self.object(&resource)?.sync()
    }

    fn get_flags(&mut self, resource: Resource<OpenObject>) -> FsResult<DescriptorFlags> {
        let object = self.object(&resource)?;
        let mut flags = DescriptorFlags::empty();
        if object.descriptor().is_readable() {
            flags |= DescriptorFlags::READ;
        }
        if object.descriptor().is_writable() {
            flags |= if object.is_file() { DescriptorFlags::WRITE } else { DescriptorFlags::MUTATE_DIRECTORY };
        }
        Ok(flags)
    }

    fn get_type(&mut self, resource: Resource<OpenObject>) -> FsResult<DescriptorType> {
        Ok(self.stat(resource)?.type_)
    }

    fn set_size(&mut self, resource: Resource<OpenObject>, size: u64) -> FsResult<()> {
        let object = self.object(&resource)?;
        Ok(object.shared.fs().set_len(object.descriptor(), size)?)
    }

    fn set_times(&mut self, resource: Resource<OpenObject>, _: NewTimestamp, _: NewTimestamp) -> FsResult<()> {
        let object = self.object(&resource)?;
        Ok(object.shared.fs().set_times(object.descriptor())?)
    }

    fn set_times_at(
        &mut self,
        resource: Resource<OpenObject>,
        _: PathFlags,
        path: String,
        _: NewTimestamp,
        _: NewTimestamp,
    ) -> FsResult<()> {
        let object = self.object(&resource)?;
        Ok(object.shared.fs().set_times_at(object.descriptor(), &path)?)
    }

    fn read(&mut self, resource: Resource<OpenObject>, len: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let object = self.object(&resource)?;
        let bytes = object.read(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        let at_end = offset.saturating_add(bytes.len() as u64) >= object.size_bytes();
        Ok((bytes, at_end))
    }

    fn write(&mut self, resource: Resource<OpenObject>, data: Vec<u8>, offset: u64) -> FsResult<u64> {
        self.object(&resource)?.write(offset, &data)?;
        Ok(data.len() as u64)
    }

    fn read_directory(&mut self, resource: Resource<OpenObject>) -> FsResult<Resource<Listing>> {
        let object = self.object(&resource)?;
        if object.is_file() {
            return Err(FsError::NotDirectory.into());
        }
        let listing = Listing { directory: object.again()?, last: None };
        Ok(self.table.push(listing)?)
    }

    fn create_directory_at(&mut self, resource: Resource<OpenObject>, path: String) -> FsResult<()> {
        self.directory_write(&resource, |fs, base| fs.create_directory_at(base, &path))
    }

    fn stat(&mut self, resource: Resource<OpenObject>) -> FsResult<DescriptorStat> {
        let object = self.object(&resource)?;
        Ok(descriptor_stat(object.shared.fs().stat(object.descriptor())))
    }

    fn stat_at(&mut self, resource: Resource<OpenObject>, _: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let object = self.object(&resource)?;
        Ok(descriptor_stat(object.shared.fs().stat_at(object.descriptor(), &path)?))
    }

    fn link_at(
        &mut self,
        _: Resource<OpenObject>,
        _: PathFlags,
        _: String,
        _: Resource<OpenObject>,
        _: String,
    ) -> FsResult<()> {
        Err(FsError::Unsupported.into())
    }

    fn open_at(
        &mut self,
        resource: Resource<OpenObject>,
        _: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<OpenObject>> {
        let object = self.object(&resource)?;
        let how = OpenHow {
            create: open.contains(OpenFlags::CREATE),
            exclusive: open.contains(OpenFlags::EXCLUSIVE),
            directory: open.contains(OpenFlags::DIRECTORY),
            truncate: open.contains(OpenFlags::TRUNCATE),
            read: flags.contains(DescriptorFlags::READ),
            write: flags.contains(DescriptorFlags::WRITE),
        };
        if flags.contains(DescriptorFlags::MUTATE_DIRECTORY) && !object.descriptor().is_writable() {
            return Err(FsError::ReadOnly.into());
        }
        let descriptor = object.shared.fs().open_at(object.descriptor(), &path, how)?;
        let opened = OpenObject::new(self.shared.clone(), descriptor);
        Ok(self.table.push(opened)?)
    }

    /// There are no symbolic links, so whatever is there is not one.
    fn readlink_at(&mut self, resource: Resource<OpenObject>, path: String) -> FsResult<String> {
        self.stat_at(resource, PathFlags::empty(), path)?;
        Err(FsError::Invalid.into())
    }

    fn remove_directory_at(&mut self, resource: Resource<OpenObject>, path: String) -> FsResult<()> {
        self.directory_write(&resource, |fs, base| fs.remove_directory_at(base, &path))
    }

    fn rename_at(
        &mut self,
        resource: Resource<OpenObject>,
        path: String,
        new_resource: Resource<OpenObject>,
        new_path: String,
    ) -> FsResult<()> {
        let to = self.object(&new_resource)?;
        self.directory_write(&resource, |fs, from| fs.rename_at(from, &path, to.descriptor(), &new_path))
    }

    fn symlink_at(&mut self, _: Resource<OpenObject>, _: String, _: String) -> FsResult<()> {
        Err(FsError::Unsupported.into())
    }

    fn unlink_file_at(&mut self, resource: Resource<OpenObject>, path: String) -> FsResult<()> {
        self.directory_write(&resource, |fs, base| fs.unlink_file_at(base, &path))
    }

    fn is_same_object(&mut self, a: Resource<OpenObject>, b: Resource<OpenObject>) -> Result<bool> {
        let (a, b) = (self.table.get(&a)?, self.table.get(&b)?);
        Ok(a.descriptor().is_same_object(b.descriptor()))
    }

    fn metadata_hash(&mut self, resource: Resource<OpenObject>) -> FsResult<MetadataHashValue> {
        let object = self.object(&resource)?;
        Ok(metadata_hash(object.shared.fs().stat(object.descriptor())))
    }

    fn metadata_hash_at(
        &mut self,
        resource: Resource<OpenObject>,
        _: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let object = self.object(&resource)?;
        Ok(metadata_hash(object.shared.fs().stat_at(object.descriptor(), &path)?))
    }

    fn drop(&mut self, resource: Resource<OpenObject>) -> Result<()> {
        self.table.delete(resource)?;
        Ok(())
    }
}

impl TaskState {
    fn output_stream(
        &mut self,
        resource: &Resource<OpenObject>,
        position: WritePosition,
    ) -> FsResult<Resource<DynOutputStream>> {
        let object = self.object(resource)?;
        if !object.is_file() {
            return Err(FsError::IsDirectory.into());
        }
        if !object.descriptor().is_writable() {
            return Err(FsError::BadDescriptor.into());
        }
        let stream = FileOutput { file: object.again()?, position };
        Ok(self.table.push(Box::new(stream) as DynOutputStream)?)
    }
}

fn descriptor_type(kind: FileKind) -> DescriptorType {
    match kind {
        FileKind::Directory => DescriptorType::Directory,
        FileKind::File => DescriptorType::RegularFile,
    }
}

fn descriptor_stat(stat: Stat) -> DescriptorStat {
    let epoch = Some(Datetime { seconds: 0, nanoseconds: 0 });
    DescriptorStat {
        type_: descriptor_type(stat.kind),
        link_count: 1,
        size: stat.size_bytes,
        data_access_timestamp: epoch,
        data_modification_timestamp: epoch,
        status_change_timestamp: epoch,
    }
}

/// Names an object and nothing more: the same for an object's whole life, and in every run. Preview 1 shows it to
/// programs as the inode number.
fn metadata_hash(stat: Stat) -> MetadataHashValue {
    // The finaliser of splitmix64 (Steele, Lea, Flood 2014): serials are small numbers, and some programs fold inodes.
    let mix = |mut word: u64| {
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    MetadataHashValue { lower: mix(stat.serial + 1), upper: mix(!stat.serial) }
}
