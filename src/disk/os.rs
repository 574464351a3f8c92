//! The real file system. Linux only: it reads `/proc` for processes and the boot id, clones files
//! with `FICLONE`, and recognizes network file systems by the magic numbers of `linux/magic.h`.
#![expect(clippy::disallowed_methods, reason = "the only module that may call the file system")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Access, Disk, DiskError, DiskFile, DiskResult, Entry, FileKind, Identity, Metadata};

/// The file system of this machine, seen from this process. Works on Linux only.
#[derive(Debug, Default)]
pub struct OsDisk {
    /// Read on first use: most commands never need it.
    identity: OnceLock<Identity>,
}

impl OsDisk {
    /// Returns the file system of this machine.
    pub fn new() -> OsDisk {
        OsDisk::default()
    }
}

fn identity() -> Identity {
    let pid = std::process::id();
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let uid = rustix::process::geteuid().as_raw();
    Identity {
        pid,
        started: start_time(pid).unwrap_or(0),
        boot_id: read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // Cron may set neither variable.
        user: std::env::var("USER")
            .or_else(|_| std::env::var("LOGNAME"))
            .unwrap_or_else(|_| if uid == 0 { "root".into() } else { uid.to_string() }),
    }
}

/// Returns field 22 of `/proc/<pid>/stat`, counted from behind the command's closing parenthesis.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}

fn metadata_of(meta: &fs::Metadata) -> Metadata {
    Metadata {
        kind: kind_of(meta.file_type()),
        len: meta.len(),
        mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        ctime_ns: meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()),
        inode: meta.ino(),
        device: meta.dev(),
    }
}

trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> DiskResult<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> DiskResult<T> {
        self.map_err(|source| DiskError::new(action, path, source))
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, access: Access) -> DiskResult<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
            Access::OpenOrCreate => {
                options.write(true).create(true);
            }
        }
        let action = if access == Access::CreateNew { "create" } else { "open" };
        let file = options.open(path).at(action, path)?;
        Ok(Box::new(OsFile { file, path: path.to_owned() }))
    }

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        fs::DirBuilder::new().mode(0o700).create(path).at("create directory", path)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(from, to).at("rename", from)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        fs::remove_file(path).at("remove", path)
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        fs::remove_dir(path).at("remove directory", path)
    }

    fn sync_dir(&self, path: &Path) -> DiskResult<()> {
        File::open(path).at("open directory", path)?.sync_all().at("sync directory", path)
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).at("list", path)? {
            let entry = entry.at("list", path)?;
            let kind = kind_of(entry.file_type().at("inspect", path)?);
            entries.push(Entry { name: entry.file_name(), kind });
        }
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> DiskResult<Metadata> {
        fs::metadata(path).map(|meta| metadata_of(&meta)).at("inspect", path)
    }

    fn symlink_metadata(&self, path: &Path) -> DiskResult<Metadata> {
        fs::symlink_metadata(path).map(|meta| metadata_of(&meta)).at("inspect", path)
    }

    fn read_link(&self, path: &Path) -> DiskResult<PathBuf> {
        fs::read_link(path).at("read link", path)
    }

    fn symlink(&self, target: &Path, path: &Path) -> DiskResult<()> {
        std::os::unix::fs::symlink(target, path).at("create link", path)
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::hard_link(from, to).at("link", to)
    }

    fn links(&self, path: &Path) -> DiskResult<u64> {
        fs::metadata(path).map(|meta| meta.nlink()).at("inspect", path)
    }

    fn clone_file(&self, from: &Path, to: &Path) -> DiskResult<bool> {
        use rustix::io::Errno;
        let source = File::open(from).at("open", from)?;
        let copy = OpenOptions::new().write(true).open(to).at("open", to)?;
        match rustix::fs::ioctl_ficlone(&copy, &source) {
            Ok(()) => Ok(true),
            Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                Err(io::Error::from(full)).at("clone", from)
            }
            // The files are on different file systems, or theirs cannot share data. Any other cause
            // makes the copy that follows fail, too.
            Err(_) => Ok(false),
        }
    }

    fn free_bytes(&self, path: &Path) -> DiskResult<u64> {
        let stat = rustix::fs::statvfs(path)
            .map_err(io::Error::from)
            .at("ask for the free space of", path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn is_network(&self, path: &Path) -> DiskResult<bool> {
        // NFS, SMB, CIFS, SMB2, AFS, Ceph, 9P, FUSE (sshfs and others), from linux/magic.h.
        const NETWORK: [u64; 8] = [
            0x6969,
            0x517b,
            0xff53_4d42,
            0xfe53_4d42,
            0x5346_414f,
            0x00c3_6400,
            0x0102_1997,
            0x6573_5546,
        ];
        let stat = rustix::fs::statfs(path)
            .map_err(io::Error::from)
            .at("inspect the file system of", path)?;
        Ok(NETWORK.contains(&(stat.f_type as u64 & 0xffff_ffff)))
    }

    fn identity(&self) -> &Identity {
        self.identity.get_or_init(identity)
    }

    fn is_alive(&self, pid: u32, started: u64) -> bool {
        start_time(pid) == Some(started)
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at("read", &self.path),
            }
        }
        Ok(done)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.file.write_all_at(data, offset).at("write", &self.path)
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.file.sync_data().at("sync", &self.path)
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.file.sync_all().at("sync", &self.path)
    }

    fn metadata(&self) -> DiskResult<Metadata> {
        self.file.metadata().map(|meta| metadata_of(&meta)).at("inspect", &self.path)
    }

    fn try_lock(&self) -> DiskResult<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).at("lock", &self.path),
        }
    }

    fn unlock(&self) -> DiskResult<()> {
        self.file.unlock().at("unlock", &self.path)
    }
}
