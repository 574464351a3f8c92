use super::*;

#[test]
fn a_power_cut_keeps_what_was_synced_and_may_take_the_rest() {
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
fn locks_are_given_up_by_dropping_unlocking_and_dying() {
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
fn failures_and_kills_come_where_they_were_placed() {
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
