//! Job storage and swap: mounts, and stacks of devices beneath them.

use super::tree::{StandIn, item_of};
use starminer_verify::HostMeasure::{
    JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed, SwapEncrypted, SwapOff,
};
use starminer_verify::PostureState::{self, Absent, InForce, NotChecked};

const JOBS: &str = "/var/lib/jobs";
const LOCKED: &str = "rw,nosuid,nodev,noexec,relatime";

/// A device in sysfs as the kernel lays it out: a folder below `devices`, and links to it by number and by name.
fn device(tree: StandIn, name: &str, number: &str, files: &[(&str, &str)]) -> StandIn {
    let folder = format!("sys/devices/virtual/block/{name}");
    let tree = tree
        .folder(&folder)
        .link(&format!("sys/dev/block/{number}"), format!("../../devices/virtual/block/{name}"))
        .link(&format!("sys/class/block/{name}"), format!("../../devices/virtual/block/{name}"));
    files.iter().fold(tree, |tree, (file, contents)| tree.file(&format!("{folder}/{file}"), contents))
}

fn stands_on(tree: StandIn, upper: &str, lower: &str) -> StandIn {
    tree.link(&format!("sys/devices/virtual/block/{upper}/slaves/{lower}"), format!("../../{lower}"))
}

fn luks(tree: StandIn, name: &str, number: &str) -> StandIn {
    device(tree, name, number, &[("dm/uuid", "CRYPT-LUKS2-0123-jobs\n"), ("dm/name", "jobs\n")])
}

/// A disk with one partition, whose folder lies in that of the disk.
fn disk(tree: StandIn, number: &str, partition_number: &str) -> StandIn {
    device(tree, "sda", number, &[("size", "1")])
        .file("sys/devices/virtual/block/sda/sda1/partition", "1\n")
        .link(&format!("sys/dev/block/{partition_number}"), "../../devices/virtual/block/sda/sda1")
        .link("sys/class/block/sda1", "../../devices/virtual/block/sda/sda1")
}

/// A mount table with a root and what is given, one after the other from id 30.
fn mounts(lines: &[(u32, &str, &str, &str, &str)]) -> String {
    let mut table = "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n".to_string();
    for (at, (parent, number, point, options, rest)) in lines.iter().enumerate() {
        table += &format!("{} {parent} {number} / {point} {options} shared:{at} master:3 - {rest}\n", 30 + at);
    }
    table
}

/// Job storage mounted at its own place from `number`, with this file system.
fn mounted(number: &str, kind: &str) -> StandIn {
    let table = mounts(&[(29, number, JOBS, LOCKED, &format!("{kind} /dev/mapper/jobs rw"))]);
    disk(StandIn::new(), "8:0", "8:1").file("proc/self/mountinfo", table).job_storage(JOBS)
}

#[test]
fn encryption_through_the_stack() {
    let on = |build: &dyn Fn(StandIn) -> StandIn, state: PostureState, says: &str| {
        build(mounted("253:0", "ext4")).check(JobStorageEncrypted, state, says);
    };
    on(&|tree| luks(tree, "dm-0", "253:0"), InForce, "ext4 on LUKS2 (jobs)");
    on(&|tree| stands_on(luks(tree, "dm-0", "253:0"), "dm-0", "sda"), InForce, "LUKS2");
    for (uuid, state) in [
        ("CRYPT-LUKS1-0123-jobs", InForce),
        ("CRYPT-PLAIN-jobs", InForce),
        ("CRYPT-VERITY-0123-jobs", Absent),
        ("CRYPT-INTEGRITY-jobs", Absent),
        ("LVM-abc", Absent),
        ("xCRYPT-LUKS2-", Absent),
        ("", Absent),
    ] {
        on(&|tree| device(tree, "dm-0", "253:0", &[("dm/uuid", uuid)]), state, "");
    }
    // LVM over LUKS over a partition.
    let lvm = |tree| stands_on(device(tree, "dm-0", "253:0", &[("dm/uuid", "LVM-x")]), "dm-0", "dm-1");
    on(&|tree| lvm(luks(tree, "dm-1", "253:1")), InForce, "LUKS2");
    on(&|tree| lvm(device(tree, "dm-1", "253:1", &[("dm/uuid", "LVM-y")])), Absent, "dm-1 is not encrypted");
    // Over two, of which one is bare, or not known.
    let two = |tree| stands_on(lvm(luks(tree, "dm-1", "253:1")), "dm-0", "sda");
    on(&two, Absent, "sda is not encrypted");
    on(&|tree| stands_on(lvm(luks(tree, "dm-1", "253:1")), "dm-0", "gone"), NotChecked, "gone cannot be found");
    on(&|tree| stands_on(two(tree), "dm-0", "gone"), Absent, "sda");
    // A partition of an encrypted array.
    on(
        &|tree| {
            let array = stands_on(luks(device(tree, "md0", "9:0", &[("size", "1")]), "dm-1", "253:1"), "md0", "dm-1");
            array
                .file("sys/devices/virtual/block/md0/md0p1/partition", "1\n")
                .link("sys/dev/block/253:0", "../../devices/virtual/block/md0/md0p1")
        },
        InForce,
        "LUKS2",
    );
    on(&|tree| device(tree, "loop0", "253:0", &[("loop/backing_file", "/x")]), NotChecked, "loop0 is a file");
    on(&|tree| device(tree, "zram0", "253:0", &[]), InForce, "in memory");
    on(&|tree| device(tree, "zram0", "253:0", &[("backing_dev", "none\n")]), InForce, "in memory");
    on(&|tree| device(tree, "zram0", "253:0", &[("backing_dev", "/dev/sda1\n")]), NotChecked, "write back");
    on(&|tree| tree, NotChecked, "253:0 cannot be found");
    mounted("8:1", "ext4").check(JobStorageEncrypted, Absent, "sda is not encrypted");
}

/// What stands at the path is compared with what stood there when the folder was named.
#[test]
fn job_storage_is_the_folder_that_it_was() {
    let tree = luks(mounted("253:0", "ext4"), "dm-0", "253:0");
    let host = tree.host();
    let table = std::fs::read_to_string(tree.root().join("proc/self/mountinfo")).unwrap();
    let folder = tree.root().join(JOBS.trim_start_matches('/'));
    let check = |state: PostureState, says: &str| {
        let item = item_of(&host, JobStorageUnshadowed);
        assert_eq!(item.state(), state, "{}", item.detail());
        assert!(item.detail().contains(says), "{}", item.detail());
    };
    check(InForce, "");
    // Another file system, another folder of the same one, an overlay; and the mount on top of the first is one over it.
    for other in [
        table.replace(" 253:0 / ", " 253:1 / "),
        table.replace(" 253:0 / ", " 253:0 /other "),
        table.replace(" 253:0 / ", " 0:44 / ").replace("ext4 /dev/mapper/jobs", "overlay overlay"),
        table.lines().next().unwrap().to_owned() + "\n",
    ] {
        assert_ne!(other, table);
        tree.put("proc/self/mountinfo", &other);
        check(Absent, "another folder than at the agent's start stands there");
        assert_eq!(item_of(&host, JobStorageEncrypted).state() == InForce, other.contains(" 253:0 "), "{other}");
    }
    let stacked = format!("{table}60 30 8:1 /foreign {JOBS} {LOCKED} shared:9 - ext4 /dev/sda1 rw\n");
    tree.put("proc/self/mountinfo", &stacked);
    check(Absent, "mounts over it");
    // Options are another measure's, and mount ids nobody's.
    tree.put("proc/self/mountinfo", table.replace("noexec", "exec").replace("30 29 ", "77 29 "));
    check(InForce, "");
    assert_eq!(item_of(&host, JobStorageLocked).state(), Absent);
    tree.put("proc/self/mountinfo", &table);
    check(InForce, "");
    // The folder itself is exchanged, and brought back.
    let away = tree.root().join("away");
    std::fs::rename(&folder, &away).unwrap();
    check(Absent, "gone");
    std::fs::create_dir(&folder).unwrap();
    check(Absent, "another folder");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    check(InForce, "");
}

#[test]
fn hostile_stacks() {
    let start = || device(mounted("253:0", "ext4"), "dm-0", "253:0", &[("dm/uuid", "LVM-x")]);
    // A device that stands on itself, two that stand on each other, a link to itself, one that leads out of the tree.
    stands_on(start(), "dm-0", "dm-0").check(JobStorageEncrypted, NotChecked, "circle");
    let pair = stands_on(stands_on(device(start(), "dm-1", "253:1", &[]), "dm-0", "dm-1"), "dm-1", "dm-0");
    pair.check(JobStorageEncrypted, NotChecked, "circle");
    let slave = "sys/devices/virtual/block/dm-0/slaves/x";
    start().link(slave, "x").check(JobStorageEncrypted, NotChecked, "x cannot be found");
    let outside = StandIn::new().file("dm/uuid", "CRYPT-LUKS2-x");
    start().link(slave, outside.root()).check(JobStorageEncrypted, NotChecked, "x cannot be found");
    start().link("sys/devices/virtual/block/dm-0/slaves", "slaves").check(JobStorageEncrypted, NotChecked, "listed");
    // A fan whose every way is long: 8 on each level.
    let mut fan = start();
    for level in 0..8 {
        for at in 0..8 {
            let upper = if level == 0 { "dm-0".to_string() } else { format!("l{level}-{at}") };
            for lower in 0..8 {
                if level == 0 && at > 0 {
                    continue;
                }
                fan = stands_on(fan, &upper, &format!("l{}-{lower}", level + 1));
            }
        }
    }
    fan.check(JobStorageEncrypted, NotChecked, "too deep");
    // More devices beneath than are listed.
    let wide = (0..100).fold(start(), |tree, at| stands_on(tree, "dm-0", &format!("x{at}")));
    wide.check(JobStorageEncrypted, NotChecked, "listed");
    // A name that is not fit to be shown is shown as far as it is.
    let mut name = "\"\u{1f}\u{202e}\n".repeat(10);
    name.push_str(&"x".repeat(500));
    let loud = device(mounted("253:0", "ext4"), "dm-0", "253:0", &[("dm/uuid", "CRYPT-LUKS2-"), ("dm/name", &name)]);
    loud.check(JobStorageEncrypted, InForce, "LUKS2 (????????");
    // An identity that is no text, or far too long, is none.
    for uuid in [[b"CRYPT-LUKS2-".as_slice(), &[0xff]].concat(), [b"CRYPT-LUKS2-".as_slice(), &[b'x'; 70_000]].concat()]
    {
        let tree = device(mounted("253:0", "ext4"), "dm-0", "253:0", &[]);
        tree.file("sys/devices/virtual/block/dm-0/dm/uuid", uuid).check(JobStorageEncrypted, Absent, "");
    }
}

#[test]
fn memory_is_as_good_as_swap() {
    let heading = "Filename\tType\tSize\tUsed\tPriority\n";
    let crypt = format!("{heading}/dev/dm-0 partition 9 0 -2\n");
    let bare = format!("{heading}/dev/sda1 partition 9 0 -2\n");
    let both = format!("{crypt}/dev/sda1 partition 9 0 -3\n");
    let file = format!("{heading}/swap\\040file file 9 0 -2\n");
    let tree = |kind: &str| luks(mounted("0:40", kind), "dm-0", "253:0");
    for (swaps, state, says) in [
        (heading, InForce, "tmpfs, in memory; no swap"),
        (&crypt, InForce, "LUKS2"),
        (&bare, Absent, "swap: sda is not encrypted"),
        (&both, Absent, "sda"),
        ("", NotChecked, "swap"),
    ] {
        tree("tmpfs").file("proc/swaps", swaps).check(JobStorageEncrypted, state, says);
    }
    tree("tmpfs").check(JobStorageEncrypted, NotChecked, "swaps cannot be read");
    tree("ramfs").file("proc/swaps", &bare).check(JobStorageEncrypted, InForce, "ramfs");
    for (swaps, state, says) in [
        (heading.to_string(), InForce, "no swap"),
        (crypt, InForce, "LUKS2"),
        (bare, Absent, "sda"),
        (both, Absent, "sda"),
        (file, Absent, "sda"),
        (format!("{heading}/dev/zram0 partition 9 0 100\n"), NotChecked, "zram0 cannot be found"),
        (format!("{heading}/dev/../dm-0 partition 9 0 1\n"), NotChecked, ""),
        (format!("{heading}/dev/dm-0 file 9 0 1\n"), NotChecked, ""),
        (format!("{heading}/gone\\040(deleted) file 9 0 1\n"), NotChecked, "cannot be found"),
        (format!("{heading}dm-0 partition 9 0 1\n"), NotChecked, "not understood"),
        (format!("{heading}{}", "/dev/dm-0 partition 9 0 1\n".repeat(65)), NotChecked, "more swap areas"),
    ] {
        let state_of_off = match says {
            "no swap" => InForce,
            "more swap areas" => NotChecked,
            _ => Absent,
        };
        let tree = tree("ext4").file("swap file", "").file("proc/swaps", swaps);
        tree.check(SwapEncrypted, state, says).check(SwapOff, state_of_off, "");
    }
    let linked = tree("ext4").file("dev/dm-0", "").link("dev/mapper/swap", "../dm-0");
    let linked = linked.file("proc/swaps", format!("{heading}/dev/mapper/swap partition 9 0 1\n"));
    linked.check(SwapEncrypted, InForce, "LUKS2");
    // Swap in a file on tmpfs does not exist; a table that says so leads nowhere, and not into a circle.
    let odd = tree("tmpfs")
        .file(&format!("{JOBS}/swap")[1..], "")
        .file("proc/swaps", format!("{heading}{JOBS}/swap file 9 0 1\n"));
    odd.check(SwapEncrypted, NotChecked, "").check(JobStorageEncrypted, NotChecked, "");
}

#[test]
fn file_systems_without_a_device() {
    for kind in ["overlay", "nfs4", "9p", "virtiofs", "fuse.sshfs", "zfs"] {
        luks(mounted("0:40", kind), "dm-0", "253:0").check(JobStorageEncrypted, NotChecked, kind);
    }
    // btrfs: all devices of the file system that the mounted one belongs to.
    let btrfs = |devices: &[&str]| {
        let tree = device(luks(mounted("0:40", "btrfs"), "dm-0", "253:0"), "dm-1", "253:1", &[("dm/uuid", "LVM-x")]);
        let tree = tree.file("dev/dm-0", "").link("dev/mapper/jobs", "../dm-0").folder("sys/fs/btrfs/features");
        let tree = tree.link("sys/fs/btrfs/another/devices/dm-1", "../../../../devices/virtual/block/dm-1");
        devices.iter().fold(tree, |tree, name| {
            tree.link(&format!("sys/fs/btrfs/uuid/devices/{name}"), format!("../../../../devices/virtual/block/{name}"))
        })
    };
    btrfs(&["dm-0"]).check(JobStorageEncrypted, InForce, "LUKS2");
    btrfs(&["dm-0", "dm-1"]).check(JobStorageEncrypted, Absent, "dm-1");
    btrfs(&[]).check(JobStorageEncrypted, NotChecked, "btrfs");
    mounted("0:40", "btrfs").check(JobStorageEncrypted, NotChecked, "btrfs");
}

/// Which mount a path lies on, with what is mounted over what.
#[test]
fn the_mount_that_counts() {
    let ext4 = "ext4 /dev/mapper/jobs rw";
    let other = "xfs /dev/sdb1 rw";
    let check = |lines: &[(u32, &str, &str, &str, &str)], options: PostureState, unshadowed: PostureState| {
        let tree = luks(disk(StandIn::new(), "8:0", "8:1"), "dm-0", "253:0");
        let tree = tree.file("proc/self/mountinfo", mounts(lines)).job_storage(JOBS);
        tree.check(JobStorageLocked, options, "").check(JobStorageUnshadowed, unshadowed, "");
        tree.item(JobStorageEncrypted).state()
    };
    let jobs = (29, "253:0", JOBS, LOCKED, ext4);
    assert_eq!(check(&[jobs], InForce, InForce), InForce);
    // On the root's own mount.
    assert_eq!(check(&[], Absent, InForce), Absent);
    // A folder above is the mount; a name that only begins alike is not.
    assert_eq!(check(&[(29, "253:0", "/var", LOCKED, ext4)], InForce, InForce), InForce);
    assert_eq!(check(&[(29, "253:0", "/var/lib/job", LOCKED, ext4)], Absent, InForce), Absent);
    // Beneath it, over it, and over a folder above, which hides it.
    assert_eq!(check(&[jobs, (30, "8:1", "/var/lib/jobs/1", LOCKED, other)], InForce, Absent), InForce);
    assert_eq!(check(&[jobs, (30, "8:1", JOBS, LOCKED, other)], InForce, Absent), Absent);
    assert_eq!(check(&[jobs, (29, "8:1", "/var", "rw", other)], Absent, InForce), Absent);
    // Two at one point of one parent, and a circle: not clear.
    assert_eq!(check(&[jobs, jobs], NotChecked, NotChecked), NotChecked);
    // A parent that is not there leads nowhere.
    assert_eq!(check(&[(99, "253:0", JOBS, LOCKED, ext4)], Absent, InForce), Absent);
    // A child that claims a place above its parent is not on the way.
    assert_eq!(check(&[jobs, (30, "8:1", "/var", "rw", other)], InForce, InForce), InForce);
    // Each option counts, and so does which mount's they are.
    for options in ["rw,nosuid,nodev", "rw,nosuid,noexec", "rw,nodev,noexec", "rw,nosuidx,nodev,noexec", "rw"] {
        check(&[(29, "253:0", JOBS, options, "ext4 /dev/x rw,nosuid,nodev,noexec")], Absent, InForce);
    }
    // A bind mount has the number of the device that it is from.
    assert_eq!(
        check(&[(29, "8:1", "/bind", "rw", other), (29, "253:0", JOBS, LOCKED, ext4)], InForce, InForce),
        InForce
    );
}

#[test]
fn links_and_odd_names() {
    let spaced = mounts(&[(29, "253:0", "/var/job\\040s\\134", LOCKED, "ext4 /dev/x rw")]);
    let tree = luks(StandIn::new(), "dm-0", "253:0").file("proc/self/mountinfo", spaced);
    tree.job_storage("/var/job s\\").check(JobStorageEncrypted, InForce, "LUKS2");
    let table = mounts(&[(29, "253:0", "/srv/real", LOCKED, "ext4 /dev/x rw")]);
    let tree = luks(StandIn::new(), "dm-0", "253:0").file("proc/self/mountinfo", table).folder("srv/real/jobs");
    let tree = tree.link("var/lib", "../srv/real").job_storage("/var/lib/jobs");
    tree.check(JobStorageEncrypted, InForce, "LUKS2");
    // Out of the tree, or nowhere.
    let outside = StandIn::new();
    let away = StandIn::new().file("proc/self/mountinfo", mounts(&[])).link("jobs", outside.root());
    let item = starminer_attester::HostTree::at(away.root()).with_job_storage("/jobs").collect();
    assert!(item.iter().filter(|item| item.name() == JobStorageEncrypted).all(|item| item.state() == NotChecked));
    mounted("8:1", "ext4").check(JobStorageEncrypted, Absent, "");
    let unnamed = StandIn::new().file("proc/self/mountinfo", mounts(&[]));
    unnamed.check(JobStorageEncrypted, NotChecked, "no job storage is named");
}

#[test]
fn hostile_mount_tables() {
    let good = mounts(&[(29, "253:0", JOBS, LOCKED, "ext4 /dev/x rw")]);
    let with =
        |table: Vec<u8>| luks(StandIn::new(), "dm-0", "253:0").file("proc/self/mountinfo", table).job_storage(JOBS);
    with(good.clone().into()).check(JobStorageEncrypted, InForce, "");
    let bad: Vec<Vec<u8>> = vec![
        vec![],
        b"\0".to_vec(),
        [good.as_bytes(), b"31 29 8:1 / /x rw\n"].concat(),
        [good.as_bytes(), b"31 29 8 / /x rw - ext4 /dev/x rw\n"].concat(),
        [good.as_bytes(), b"-1 29 8:1 / /x rw - ext4 /dev/x rw\n"].concat(),
        [good.as_bytes(), b"31 29 8:1 / relative rw - ext4 /dev/x rw\n"].concat(),
        [good.as_bytes(), b"31 29 8:99999999999 / /x rw - ext4 /dev/x rw\n"].concat(),
        [good.as_bytes(), b"31 29 8:1 / /x \xff - ext4 /dev/x rw\n"].concat(),
        // A second root, a circle.
        [good.as_bytes(), b"31 77 8:1 / / rw - ext4 /dev/x rw\n"].concat(),
        b"1 2 8:1 / / rw - ext4 /dev/x rw\n2 1 8:1 / / rw - ext4 /dev/x rw\n".to_vec(),
        vec![b'x'; 9 << 20],
    ];
    for table in bad {
        let shown = String::from_utf8_lossy(&table[..table.len().min(200)]).into_owned();
        let tree = with(table);
        for measure in [JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed] {
            assert_eq!(tree.item(measure).state(), NotChecked, "{measure} from {shown}");
        }
    }
    // Points that are no text are fine elsewhere.
    with([good.as_bytes(), b"31 29 8:1 / /\xff\xfe\\777 rw - ext4 /dev/\xff rw\n"].concat()).check(
        JobStorageEncrypted,
        InForce,
        "",
    );
    // A large table is read.
    let many: String = (100..20_000).map(|id| format!("{id} 29 8:1 / /m/{id} rw - ext4 /dev/x rw\n")).collect();
    with((good + &many).into()).check(JobStorageEncrypted, InForce, "");
}
