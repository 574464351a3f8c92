use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::disk::{Access, Disk, DiskResult};

#[test]
fn a_power_cut_keeps_synced_data_and_may_lose_the_rest() {
    for keep in [false, true] {
        let machine = Machine::new();
        let disk = machine.process();
        let path = Path::new("/a");
        let file = disk.open(path, Access::CreateNew).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(b"two", 3).unwrap();
        disk.open(Path::new("/b"), Access::CreateNew).unwrap();
        machine.power_cut(|| keep);
        assert!(file.sync_data().is_err(), "the process is dead");
        let disk = machine.process();
        let content = (&disk as &dyn Disk).read(path).unwrap();
        assert_eq!(content, if keep { &b"onetwo"[..] } else { b"one" });
        assert_eq!((&disk as &dyn Disk).exists(Path::new("/b")).unwrap(), keep);
    }
}

#[test]
fn unlocking_dropping_and_dying_release_a_lock() {
    let machine = Machine::new();
    let (a, b) = (machine.process(), machine.process());
    let path = Path::new("/lock");
    let first = a.open(path, Access::OpenOrCreate).unwrap();
    let second = b.open(path, Access::OpenOrCreate).unwrap();
    assert!(first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    first.unlock().unwrap();
    assert!(second.try_lock().unwrap());
    drop(second);
    assert!(first.try_lock().unwrap());
    a.kill();
    assert!(b.open(path, Access::Write).unwrap().try_lock().unwrap());
    assert!(b.is_alive(b.identity().pid, b.identity().started));
    assert!(!b.is_alive(a.identity().pid, a.identity().started));
}

#[test]
fn failures_and_kills_hit_the_chosen_operation() {
    let machine = Machine::new();
    let disk = machine.process();
    let file = disk.open(Path::new("/a"), Access::CreateNew).unwrap();
    disk.fail_after(1, ErrorKind::StorageFull, false);
    file.write_at(b"x", 0).unwrap();
    assert_eq!(file.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(b"x", 0).unwrap();
    disk.kill_after(1);
    file.write_at(b"x", 0).unwrap();
    assert!(file.write_at(b"y", 0).is_err());
    assert!(disk.metadata(Path::new("/a")).is_err());
}

#[test]
fn each_open_handle_reports_a_failed_flush_once() {
    let machine = Machine::new();
    let (a, b) = (machine.process(), machine.process());
    let path = Path::new("/a");
    let of_a = a.open(path, Access::CreateNew).unwrap();
    a.sync_dir(Path::new("/")).unwrap();
    let of_b = b.open(path, Access::Write).unwrap();
    of_a.write_at(b"lost", 0).unwrap();
    a.fail_after(0, Fault::Flush, false);
    assert!(of_a.sync_data().is_err());
    of_a.sync_data().unwrap();
    assert!(of_b.sync_data().is_err());
    of_b.sync_data().unwrap();
    b.open(path, Access::Write).unwrap().sync_data().unwrap();
    machine.power_cut(|| false);
    assert_eq!((&machine.process() as &dyn Disk).read(path).unwrap_or_default(), b"\0\0\0\0");
}

#[test]
fn each_fault_hits_its_kind_of_operation() {
    let machine = Machine::new();
    let disk = machine.process();
    let path = Path::new("/a");
    let file = disk.open(path, Access::CreateNew).unwrap();
    file.write_at(b"before", 0).unwrap();
    let with = |fault: Fault, call: &dyn Fn() -> DiskResult<()>| {
        disk.fail_after(0, fault, true);
        let failed = call().err();
        disk.stop_failing();
        failed.map(|error| error.source.raw_os_error())
    };
    let open = || disk.open(path, Access::Read).map(|_| ());
    let write = || file.write_at(b"AFTER!", 0);
    assert_eq!(with(Fault::Descriptors, &open), Some(Some(24)));
    assert_eq!(with(Fault::Full, &open), None);
    assert_eq!(with(Fault::ReadOnly, &write), Some(Some(30)));
    assert_eq!(with(Fault::Quota, &write), Some(Some(122)));
    assert_eq!(with(Fault::Medium, &|| disk.metadata(path).map(|_| ())), Some(Some(5)));
    assert_eq!(with(Fault::ShortWrite, &write), Some(Some(28)));
    assert_eq!((&disk as &dyn Disk).read(path).unwrap(), b"AFTore");
    assert_eq!(with(Fault::Flush, &write), None);
    assert_eq!(disk.failures(), 5);
}

#[test]
fn a_fork_is_independent_of_its_origin() {
    let machine = Machine::new();
    let path = Path::new("/a");
    machine.process().open(path, Access::CreateNew).unwrap().write_at(b"one", 0).unwrap();
    let fork = machine.fork();
    fork.process().open(path, Access::Write).unwrap().write_at(b"two", 0).unwrap();
    assert_eq!((&machine.process() as &dyn Disk).read(path).unwrap(), b"one");
    fork.power_cut_by(|unsynced| unsynced == Unsynced::Name);
    assert_eq!((&fork.process() as &dyn Disk).read(path).unwrap(), b"");
}

#[test]
fn overwriting_whole_sectors_makes_a_bad_range_readable() {
    let machine = Machine::new();
    let disk = machine.process();
    let path = Path::new("/a");
    let file = disk.open(path, Access::CreateNew).unwrap();
    file.write_at(&[b'x'; 4096], 0).unwrap();
    machine.spoil(path, 1000..2000);
    let mut buffer = [0; 4096];
    let mut reads =
        |from: u64, to: u64| file.read_at(&mut buffer[..(to - from) as usize], from).is_ok();
    assert!(reads(0, 1000) && reads(2000, 4096));
    assert!(!reads(0, 4096) && !reads(999, 1001) && !reads(1999, 2001));
    file.write_at(&[b'y'; 100], 1100).unwrap();
    assert!(!reads(1100, 1200), "part of the sector is still unreadable");
    file.write_at(&[b'y'; 600], 1000).unwrap();
    assert!(reads(1024, 1536) && !reads(1000, 1024) && !reads(1536, 2000));
    assert!((&disk as &dyn Disk).read(path).is_err());
    disk.rename(path, Path::new("/b")).unwrap();
    assert!((&disk as &dyn Disk).read(Path::new("/b")).is_err(), "the bad range follows the file");
}
