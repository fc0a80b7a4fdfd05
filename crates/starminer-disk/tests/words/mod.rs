//! What cryptsetup is told in the tests and the benchmark.

/// As `starminer_disk` formats: the same words.
pub const FORMAT: &str = "luksFormat --batch-mode --type luks2 --cipher aes-xts-plain64 --key-size 512 --hash sha256 --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --sector-size 4096 --luks2-metadata-size 16k --offset 32768 --label starminer-data --subsystem job-storage \
    --key-file - --keyfile-size 64";
