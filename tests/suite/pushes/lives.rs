//! Random histories of a log whose archives are pushed.

use super::*;

/// Logging, pushes, cleanups, failures, deletions, clock jumps, kills and power cuts, in any order.
#[test]
fn random_lives_lose_no_archive_on_its_way_out() {
    let seeds = match std::env::var("WAL_CLI_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=20,
    };
    for seed in seeds {
        println!("WAL_CLI_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut disk = world.machine.process();
        let mut wal = world.open(disk.clone()).unwrap();
        for step in 0..60 {
            let dies = random.u8(..8) == 0;
            if dies {
                disk.kill_after(random.u64(..120));
            }
            let action = random.u8(..10);
            let result = match action {
                0..=2 => {
                    let count = random.usize(1..7);
                    world.complete(&wal, count)
                }
                3 => {
                    world.pass(random.u64(..3));
                    wal.checkpoint().map(drop)
                }
                4 => {
                    let days = random.i64(-40..40);
                    let now = world.clock.now();
                    world.clock.set(now.plus_millis(days * 86_400_000));
                    let done = wal.checkpoint().map(drop);
                    world.clock.set(now);
                    done
                }
                5 | 6 => wal.push(&push_to(["/h", "/g"][random.usize(..2)])).map(drop),
                7 => wal
                    .cleanup(Retention { max_age_days: random.u64(..3), ..KEEP }, false)
                    .map(drop),
                8 if random.bool() => world.end(&wal, is_push, false).map(drop),
                8 => all(&wal).and_then(|all| {
                    let pushes = all.iter().filter(|operation| is_push(operation));
                    let one: BTreeSet<Number> =
                        pushes.map(|operation| operation.number).take(1).collect();
                    // Deleting a completed push only removes the record of it.
                    next(&wal, &one, |_| Event::Deleted { reason: "by hand".into() }).map(drop)
                }),
                _ => world.execute_pushes(&wal).map(drop),
            };
            if dies || result.is_err() {
                disk.kill();
                if random.bool() {
                    world.machine.power_cut(|| random.bool());
                }
                disk = world.machine.process();
                wal = world.open(disk.clone()).unwrap();
                // Unacknowledged operations may exist or not.
                accept_state(&mut world);
            }
            world.check(&format!("seed {seed}, step {step}, action {action}"));
        }
    }
}

/// Accepts the state that survived a death.
fn accept_state(world: &mut World) {
    let completed = everything(&world.view())
        .into_iter()
        .filter(|one| one.status() == Status::Completed && !is_push(one));
    world.completed.extend(
        completed.map(|operation| (operation.id, operation.revision.get())).collect::<Vec<_>>(),
    );
}
