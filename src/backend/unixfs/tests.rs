use std::sync::atomic::{AtomicUsize, Ordering};

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/cid-vectors.json")).unwrap()
}

/// Returns the node of a file of `size` bytes in which byte i is i mod 251.
fn pattern(size: u64, options: Options) -> Node {
    let block: Vec<u8> = (0..251 * 1024u32).map(|i| (i % 251) as u8).collect();
    let mut hasher = FileHasher::new(options);
    let mut left = size;
    while left > 0 {
        let part = left.min(block.len() as u64);
        hasher.update(&block[..part as usize]);
        left -= part;
    }
    hasher.finish()
}

fn file(content: &[u8], options: Options) -> Node {
    let mut hasher = FileHasher::new(options);
    hasher.update(content);
    hasher.finish()
}

fn key_stream(seed: &str) -> ChaCha20 {
    let key: [u8; 32] = Sha256::digest(seed).into();
    ChaCha20::new(&key.into(), &[0; 12].into())
}

fn random(size: u64, seed: &str, options: Options) -> Node {
    let mut cipher = key_stream(seed);
    let mut hasher = FileHasher::new(options);
    let mut left = size;
    while left > 0 {
        let mut block = vec![0; left.min(1 << 20) as usize];
        cipher.apply_keystream(&mut block);
        hasher.update(&block);
        left -= block.len() as u64;
    }
    hasher.finish()
}

struct Check {
    what: String,
    compute: Box<dyn Fn() -> Node + Sync>,
    expected: String,
}

/// Runs all checks on two threads, since they only compute hashes.
fn run_all(checks: &[Check]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    assert_eq!((check.compute)().cid.to_string(), check.expected, "{}", check.what);
                }
            });
        }
    });
}

#[test]
fn files_have_the_cids_that_other_implementations_give() {
    let vectors = vectors();
    let mut checks: Vec<Check> = Vec::new();
    for vector in vectors["vectors"].as_array().unwrap() {
        let size = vector["size"].as_u64().unwrap();
        for (profile, expected) in vector["cids"].as_object().unwrap() {
            let options = Options::profile(profile).unwrap();
            let compute: Box<dyn Fn() -> Node + Sync> = match vector["content"].as_str().unwrap() {
                "utf8 hello world + LF" => Box::new(move || file(b"hello world\n", options)),
                _ => Box::new(move || pattern(size, options)),
            };
            let expected = expected["cid"].as_str().unwrap().to_owned();
            let what = format!("{} in {profile}", vector["name"]);
            checks.push(Check { what, compute, expected });
        }
    }
    for vector in vectors["kubo_test_suite"]["cids"].as_array().unwrap() {
        let size = vector["size"].as_u64().unwrap();
        let options = Options::profile(vector["profile"].as_str().unwrap()).unwrap();
        let seed = vector["seed"].as_str().unwrap().to_owned();
        let what = format!("{seed} {size}");
        let expected = vector["cid"].as_str().unwrap().to_owned();
        checks.push(Check {
            what,
            compute: Box::new(move || random(size, &seed, options)),
            expected,
        });
    }
    assert!(checks.len() > 90, "only {} vectors", checks.len());
    run_all(&checks);
}

#[test]
fn the_cid_does_not_depend_on_the_pieces_of_the_content() {
    for profile in ["v0-256k-174", "v1-raw-1k-174"] {
        let options = Options::profile(profile).unwrap();
        let content: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let whole = file(&content, options);
        for piece in [1, 1000, 1024, 262_143, 262_144, 262_145] {
            let mut hasher = FileHasher::new(options);
            content.chunks(piece).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), whole, "{profile}, pieces of {piece}");
        }
    }
}

#[test]
fn directories_have_the_cids_that_other_implementations_give() {
    for expected in vectors()["directories"]["cids"].as_array().unwrap() {
        let options = Options::profile(expected["profile"].as_str().unwrap()).unwrap();
        let directory = |children: &[(&str, Node)]| {
            let children: Vec<Child> = children
                .iter()
                .map(|(name, node)| Child { name: (*name).to_owned(), node: *node })
                .collect();
            directory(&children, options).unwrap().node
        };
        let hello = file(b"hello world\n", options);
        let sub = directory(&[("empty.bin", file(b"", options))]);
        let node = match expected["entry"].as_str().unwrap() {
            "top" => directory(&[("sub", sub), ("hello.txt", hello)]),
            "top/sub" => sub,
            "wrap-with-directory of hello.txt" => directory(&[("hello.txt", hello)]),
            other => panic!("{other}"),
        };
        assert_eq!(node.cid.to_string(), expected["cid"].as_str().unwrap(), "{expected}");
        assert_eq!(node.dag_size, expected["dag_size"].as_u64().unwrap(), "{expected}");
    }
}

/// Expected by encoding the same messages with npm `ipfs-unixfs` and `@ipld/dag-pb`.
#[test]
fn links_have_the_cids_that_other_encoders_give() {
    let link = symlink(b"large", CidVersion::V0);
    assert_eq!(link.cid.to_string(), "QmYC9md5KqmDkZtx4K7kTZDBUaoMdF2QndLm7piQaiGrxB");
    assert_eq!((link.size, link.dag_size), (0, 11));
}

/// Names as Kubo's `createDeterministicFiles` makes them: from the ChaCha20 key stream of the seed.
fn kubo_names(count: usize, length: usize, last_length: usize, seed: &str) -> Vec<String> {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let mut cipher = key_stream(seed);
    (0..count)
        .map(|i| {
            let mut bytes = vec![0; if i + 1 == count { last_length } else { length }];
            cipher.apply_keystream(&mut bytes);
            bytes
                .iter()
                .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
                .collect()
        })
        .collect()
}

/// Expected by Kubo's own test/cli/cid_profiles_test.go (0.40): directories of files of one byte
/// `x`, once exactly as large as a plain directory may be, once one byte larger.
#[test]
fn directories_are_sharded_exactly_where_kubo_shards_them() {
    let old = (Options::profile("unixfs-v0-2015").unwrap(), "hamt-unixfs-v0-2015");
    let new = (Options::profile("unixfs-v1-2025").unwrap(), "hamt-unixfs-v1-2025");
    for ((options, seed), (count, length, last), expected) in [
        (old, (4096, 30, 30), "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN"),
        (old, (4033, 31, 31), "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP"),
        (new, (4766, 11, 21), "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"),
        (new, (4766, 11, 22), "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"),
    ] {
        let node = file(b"x", options);
        let names = kubo_names(count, length, last, seed);
        let children: Vec<Child> = names.into_iter().map(|name| Child { name, node }).collect();
        let directory = directory(&children, options).unwrap();
        assert_eq!(directory.node.cid.to_string(), expected);
        assert_eq!(
            directory_in_form(&children, options.cid_version, directory.sharded).unwrap(),
            directory
        );
    }
}

/// The CIDs were computed by npm `ipfs-unixfs-importer` 17.1.1 into a discarding blockstore:
/// `importer(source, blockstore, options)`, its last entry, where `source` yields the paths
/// `d/<prefix><number padded with zeros>` for 0, 1, …, and the options are `shardFanoutBits: 8`,
/// `shardSplitThresholdBytes: 262144`, `reduceSingleLeafToSelf: true`, and
/// - v0: `cidVersion: 0`, `rawLeaves: false`, `fixedSize({chunkSize: 262144})`,
///   `balanced({maxChildrenPerNode: 174})`, `shardSplitStrategy: 'links-bytes'`;
/// - v1: `cidVersion: 1`, `rawLeaves: true`, 1048576, 1024, `'block-bytes'`;
/// - v1 by links: the same with `'links-bytes'`.
#[test]
fn large_directories_have_the_cids_that_the_javascript_importer_gives() {
    let v0 = Options::default();
    let v1 = Options::profile("unixfs-v1-2025").unwrap();
    let v1_by_links = Options { sharding: Sharding::ByLinks, ..v1 };
    let empty = |_| String::new();
    let text = |i| format!("content of file {i}\n");
    let long = "x".repeat(25);
    let check =
        |options, prefix: &str, digits, count, content: fn(u32) -> String, expected: &str| {
            let children: Vec<Child> = (0..count)
                .map(|i| Child {
                    name: format!("{prefix}{i:0digits$}"),
                    node: file(content(i).as_bytes(), options),
                })
                .collect();
            let directory = directory(&children, options).unwrap();
            assert_eq!(directory.node.cid.to_string(), expected, "{count} of {prefix}");
            directory
        };
    check(v0, "file-", 5, 100, empty, "QmX1UPzfZs6Nheroa9bKpByq6Zkcdj6YW9dt396wddCCUd");
    check(v0, "file-", 5, 5957, empty, "QmT72ezFqTTRc7zHDXewBMywr9pBPzUqrbtLk4gw58mnxL");
    check(v0, "file-", 5, 5958, empty, "QmPGZ3iC6TFEozBjSa8fd47igdPjbLbhyk8J7bdVkEM3gG");
    let directory =
        check(v0, "file-", 5, 10_000, empty, "QmNnjHzGb9RgPMhkG3yPV4BNCumt61oi7evCgsN7dnvqxP");
    assert_eq!((directory.node.dag_size, directory.sharded), (674_991, true));
    let directory =
        check(v0, "file-", 5, 10_000, text, "Qmb6vvkiSQgCX9HV3V6K34mnaA4q6RKaWXc6HXCuaxdzU2");
    assert_eq!(directory.node.dag_size, 903_881);
    check(v0, &long, 5, 4096, empty, "Qmes5HTCPZ2tgy5p6wUs4hK4WkYgngicmUHwJ7z2TD9iTK");
    check(v0, &long, 5, 4097, empty, "QmVgK7einRk6qTwLAjjq4bfkHQCSpsP422NrSB5VmrLz7Y");
    check(v0, "file-", 6, 100_000, empty, "QmP1zceFKRuPsAL7dyoA9r6vejN3zro5FwmMLYwfDtZpbi");
    check(
        v1,
        "file-",
        5,
        100,
        empty,
        "bafybeiht2zgquloh2fyss4duoqnicdi4n2fccyraintl2slukkgb6rdjii",
    );
    check(
        v1,
        "file-",
        5,
        4854,
        empty,
        "bafybeidmckc2h3rcchavjwzm6qtbpbmc3b55mjxe2pnvuxwjisntoyde7a",
    );
    check(
        v1,
        "file-",
        5,
        4855,
        empty,
        "bafybeiaiyclwzqihex2zrlmrgiraldyh4spvqe7ga4zzjq6o2r7bbr77r4",
    );
    check(
        v1,
        "file-",
        5,
        10_000,
        text,
        "bafybeiakyihd5sv555hjjzxvkueuwncydu5jndgmjqq547aumd5k2a5sui",
    );
    check(
        v1_by_links,
        "file-",
        5,
        5698,
        empty,
        "bafybeigav3b37bvntsel2ktep62pqpecvfxmgzjvgfuabjsu5k3mf6ceeq",
    );
    check(
        v1_by_links,
        "file-",
        5,
        5699,
        empty,
        "bafybeigovqovla4soeuku62t5pkjbhdlc3peappdysqacgepregn2qs2q4",
    );
}

#[test]
fn parameters_override_the_options_as_in_kubo() {
    let with = |pairs: &[(&str, &str)]| {
        let parameters =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::default().overridden(&parameters)
    };
    assert_eq!(with(&[]), Ok(Options::default()));
    assert_eq!(with(&[("cid_version", "1")]).ok(), Options::profile("v1-raw-256k-174"));
    assert_eq!(
        with(&[("cid_version", "1"), ("raw_leaves", "false")]).ok(),
        Options::profile("v1-noraw-256k-174")
    );
    assert_eq!(with(&[("raw_leaves", "true")]).ok(), Options::profile("v0-raw-256k-174"));
    assert_eq!(with(&[("profile", "unixfs-v1-2025")]).ok(), Options::profile("v1-raw-1m-1024"));
    for bad in [
        ("cid_version", "2"),
        ("raw_leaves", "yes"),
        ("chunk_size", "0"),
        ("chunk_size", "2096897"),
        ("max_links", "1"),
        ("profile", "v9"),
    ] {
        assert!(with(&[bad]).unwrap_err().contains(bad.0));
    }
}

#[test]
fn blocks_are_verified_by_hash_and_decoded_by_kind() {
    let leaf = super::node::raw(b"hello").cid;
    assert_eq!(verify(&leaf, b"hello"), Ok(()));
    assert_eq!(verify(&leaf, b"jello"), Err(BlockError::OtherContent));
    let file = Block::File { data: b"hello".to_vec(), parts: Vec::new(), size: 5 };
    assert_eq!(decode(&leaf, b"hello".to_vec()), Ok(file));

    // A link, as Kubo writes it: type 4, its target as data.
    let link = symlink(b"to", CidVersion::V0).cid;
    let bytes = [&[0x0a, 6, 0x08, 4, 0x12, 2][..], b"to"].concat();
    assert_eq!(verify(&link, &bytes), Ok(()));
    assert_eq!(decode(&link, bytes.clone()), Ok(Block::Symlink("to".into())));
    for cut in 1..bytes.len() {
        assert!(decode(&link, bytes[..cut].to_vec()).is_err(), "{cut}");
    }
    for odd in [&[][..], &[0x0a, 0], &[0x0a, 2, 0x08, 9], &[0xff; 20]] {
        assert!(matches!(decode(&link, odd.to_vec()), Err(BlockError::Malformed(_))), "{odd:?}");
    }
    let inline_cid = Cid::new_v1(RAW, cid::multihash::Multihash::wrap(0, b"small").unwrap());
    assert_eq!(inline(&inline_cid), Some(&b"small"[..]));
    assert_eq!(inline(&leaf), None);
    let other = Cid::new_v1(0x71, *leaf.hash());
    assert_eq!(decode(&other, Vec::new()), Err(BlockError::UnknownCodec(0x71)));
}
